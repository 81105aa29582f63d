#!/usr/bin/env bash
# The one command before a commit: formatting, lints, tests, documentation.
#
#   scripts/check.sh [ARGUMENTS FOR cargo test]
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
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"

# What takes seconds comes first.
stage() { printf '\n== %d s: %s\n' "$SECONDS" "$*"; }
run_tests() { cargo test --locked --profile checked "$@"; }
over() {
	local transport=$1
	shift
	UNIONMOUNT_TEST_TRANSPORT=$transport run_tests "$@"
}

stage "shell scripts"
scripts=(scripts/*.sh .ci/run)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then shellcheck "${scripts[@]}"; else echo "no shellcheck here, syntax only"; fi

stage "cargo fmt"
cargo fmt --check

stage "cargo clippy"
cargo clippy --locked --profile checked --all-targets -- -D warnings

# Two lanes beside each other, since most tests wait for something most of the time.
# The core's and the protocol's tests make no mounts, and those of the life of a
# mount go through all transports by themselves: once is enough for both. So it is
# for the half million requests of case 18 and for the real root, over io_uring.
dev_lane() {
	over dev -- --skip case_18 --skip as_root --skip as_a_user_in_a_user_namespace
}
uring_lane() {
	over uring --test cli --test losses --test invariants --test options \
		--test rootless --test abuse --test crash --test real_root
	over uring --test model -- mount
	over fuser --test cli --test invariants --test options
	over fuser --test losses -- --skip case_18
}

if [ $# -gt 0 ]; then
	stage "cargo test $*"
	run_tests "$@"
else
	stage "cargo test --no-run"
	run_tests --no-run
	if grep -qsx '[Y1]' /sys/module/fuse/parameters/enable_uring; then
		stage "cargo test, over /dev/fuse; beside it over io_uring and in short over fuser"
		beside=target/checked/uring-lane.log
		uring_lane >"$beside" 2>&1 &
		lane=$!
		# Whatever happens to this one, the other lane's mounts are unmounted by its tests.
		verdict=0
		dev_lane || verdict=$?
		stage "what the lane beside it said"
		wait "$lane" || verdict=$?
		cat "$beside"
		[ "$verdict" = 0 ] || exit "$verdict"
	elif [ "${UNIONMOUNT_REQUIRE_URING:-}" = 1 ]; then
		echo "check: io_uring is required, but switched off" >&2
		exit 1
	else
		stage "cargo test, over /dev/fuse; io_uring is switched off, nothing runs over it"
		over dev
		stage "cargo test, over fuser, in short"
		over fuser --test cli --test invariants --test options
		over fuser --test losses -- --skip case_18
	fi
fi

stage "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --profile checked --no-deps

stage "all of it passed"
