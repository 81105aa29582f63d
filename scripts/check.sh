#!/usr/bin/env bash
# The one command before a commit: formatting, lints, tests, documentation.
#
#   scripts/check.sh [ARGUMENTS FOR cargo test]
#
# As root on Debian it installs what it needs (scripts/packages.txt); elsewhere it says by which command, and stops.
#
# For example `scripts/check.sh --test real_root`. Everything is built in the
# profile `checked` (Cargo.toml), which makes fast programs fast; what lints, tests
# and documentation need of dependencies is then built once. UNIONMOUNT_REQUIRE_FUSE=1 makes
# tests fail that cannot mount here, where they would be skipped, and
# UNIONMOUNT_REQUIRE_URING=1 those that find io_uring switched off.
#
# Without arguments everything runs over /dev/fuse, what mounts once more over
# io_uring where that is switched on (echo Y > /sys/module/fuse/parameters/enable_uring),
# and in short over fuser. UNIONMOUNT_TEST_TRANSPORT=dev|uring|fuser chooses for
# a run with arguments.
set -euo pipefail
SELF=$(readlink -f "$0")
cd "$(dirname "$(dirname "$SELF")")"
# shellcheck source=scripts/debian.sh
. scripts/debian.sh

# What takes seconds comes first.
stage() { printf '\n== %d s: %s\n' "$SECONDS" "$*"; }
run_tests() { cargo test --locked --profile checked --no-fail-fast "$@"; }
over() {
	local transport=$1
	shift
	UNIONMOUNT_TEST_TRANSPORT=$transport run_tests "$@"
}

# Two lanes beside each other, since most tests wait for something most of the time.
# Each has a mount namespace of its own: the namespaces that tests of one lane make
# would else hold on to the mounts of the other. What makes no mounts, or goes through
# all transports by itself, runs once; and so do, over io_uring, the half million
# requests of case 18 and the real root.
first_lane() {
	over dev --lib --bins --test abuse --test allocations --test capabilities --test cli --test crash \
		--test random_requests --test invariants --test lifecycle --test losses --test model --test options \
		--test passthrough --test protocol --test requests --test rootless -- --skip case_18
	run_tests --doc
	run_tests --test architecture --test attributes --test direct --test filesystems --test identities --test kernel_overlay --test kernel_stacks --test live --test numbers \
		--test posix --test power --test readdir --test stacked --test volumes
	over fuser --test cli --test invariants --test options
}
second_lane() {
	over uring --test losses --test abuse --test crash --test cli --test invariants --test options --test rootless
	over uring --test model -- mount
	run_tests --test archive --test check --test store
	over fuser --test losses -- --skip case_18
	# Last: the layers that it wants are made beside all this.
	over uring --test real_root
}
apart() { unshare --mount --propagation private -- bash "$SELF" --lane "$1"; }

if [ "${1:-}" = --lane ]; then
	"$2"
	exit
fi
if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
for tool in cargo rustfmt cargo-clippy; do
	command -v $tool >/dev/null || { echo "check: $tool is missing: see https://rustup.rs (rustup component add rustfmt clippy)" >&2; exit 1; }
done
if [ "$(id -u)" = 0 ] && [ -n "$(missing_packages build demo test)" ]; then stage "installing packages"; fi
install_packages build demo test || exit 1
prepare_machine

lane_tests=$(sed -n '/^first_lane/,/^apart/p' "$SELF" | grep -oE -- '--test [a-z_]+' | sort -u | cut -d ' ' -f 2)
for test in tests/*/main.rs; do
	name=${test#tests/}
	grep -qx "${name%/main.rs}" <<<"$lane_tests" || { echo "check: $test runs in no lane" >&2; exit 1; }
done

stage "shell scripts"
scripts=(scripts/*.sh .ci/run)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then shellcheck "${scripts[@]}"; else echo "no shellcheck here, syntax only"; fi

stage "cargo fmt"
cargo fmt --all --check

stage "cargo clippy"
cargo clippy --locked --profile checked --workspace --all-targets --all-features -- -D warnings

# What it promises of older compilers is also looked at by clippy (incompatible_msrv) and tests/architecture/dependencies.rs.
msrv=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
if RUSTUP_AUTO_INSTALL=0 rustup run "$msrv" cargo --version >/dev/null 2>&1; then
	stage "cargo check with Rust $msrv"
	rustup run "$msrv" cargo check --locked --target-dir target/msrv
else
	stage "no Rust $msrv here to check with"
fi

if [ $# -gt 0 ]; then
	stage "cargo test $*"
	run_tests "$@"
else
	stage "cargo test --no-run"
	run_tests --no-run
	if ! grep -qsx '[Y1]' /sys/module/fuse/parameters/enable_uring; then
		if [ "${UNIONMOUNT_REQUIRE_URING:-}" = 1 ]; then
			echo "check: io_uring is required, but switched off" >&2
			exit 1
		fi
		stage "cargo test, over /dev/fuse; io_uring is switched off, nothing runs over it"
		over dev
	elif ! unshare --mount --propagation private true 2>/dev/null; then
		stage "cargo test, one lane after the other"
		first_lane
		second_lane
	else
		stage "cargo test, over /dev/fuse; beside it over io_uring and in short over fuser"
		beside=target/checked/second-lane.log
		apart second_lane >"$beside" 2>&1 &
		lane=$!
		# Whatever happens to this one, the other lane's mounts are unmounted by its tests.
		verdict=0
		apart first_lane || verdict=$?
		stage "what the second lane said"
		wait "$lane" || verdict=$?
		cat "$beside"
		[ "$verdict" = 0 ] || exit "$verdict"
	fi
fi

stage "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --profile checked --no-deps --document-private-items

stage "all of it passed"
