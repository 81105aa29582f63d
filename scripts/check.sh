#!/usr/bin/env bash
# The one command before a commit: formatting, lints, tests, documentation.
#
#   scripts/check.sh [ARGUMENTS FOR cargo test]
#
# For example `scripts/check.sh --test real_root`. The tests are run in release
# mode, since many of them wait for the daemon. UNIONMOUNT_REQUIRE_FUSE=1 makes
# tests fail that cannot mount here, where they would be skipped.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"

# What takes seconds comes first.
stage() { printf '\n== %s\n' "$*"; }

stage "shell scripts"
scripts=(scripts/*.sh .ci/run)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then shellcheck "${scripts[@]}"; else echo "no shellcheck here, syntax only"; fi

stage "cargo fmt"
cargo fmt --check

stage "cargo clippy"
cargo clippy --locked --all-targets -- -D warnings

stage "cargo test"
cargo test --locked --release "$@"

stage "cargo doc"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

stage "all of it passed"
