#!/usr/bin/env bash
# Coverage-guided fuzzing of what others may hand to us: layers as tar streams,
# the JSON documents of images, and the -o option language.
#
#   scripts/fuzz.sh [--seconds N] [--jobs N] [--seed N] [--cache DIR] [TARGET..]
#
# TARGET       out of tar, documents, options (default: all)
# --seconds N  how long each target runs (default 60)
# --jobs N     how many run at a time (default 2)
# --seed N     the seed of the first input that is made up (default: another one each
#              time); CI has a fixed one, so that it judges the change and not the day
# --cache DIR  where all is built (default target/fuzz)
#
# A target fails when an input makes it panic, takes longer than 20 s or more
# than 1 GiB. Such an input is kept in tests/fuzz/artifacts/TARGET; copied to
# tests/fuzz/corpus/TARGET, it is tried by every `cargo test` from then on
# (the suites archive and store). What else is found on the way is kept in
# DIR/corpus, where the next run without --seed goes on.
#
# It is built without a sanitizer: all of what is fuzzed is safe Rust, in which a
# wrong index or a sum that overflows panics by itself, and so no nightly compiler
# is needed. The network is needed for what is not built yet. cargo-fuzz is used where it
# is installed, and not missed where it is not.
# Exit status: 0 nothing found, 1 something found or not possible.
set -euo pipefail
exec </dev/null

REPO=$(dirname "$(dirname "$(readlink -f "$0")")")
# Of each input: a machine may be busy with other things.
PATIENCE=20 MEMORY_MIB=1024

say() { printf '%5d s  %s\n' "$SECONDS" "$*"; }
die() { echo "fuzz: $*" >&2; exit 1; }

TARGETS=() LENGTH=60 JOBS=2 SEED=0 CACHE=$REPO/target/fuzz
while [ $# -gt 0 ]; do
	case $1 in
	--seconds) LENGTH=${2:?--seconds needs a number}; shift ;;
	--jobs) JOBS=${2:?--jobs needs a number}; shift ;;
	--seed) SEED=${2:?--seed needs a number}; shift ;;
	--cache) CACHE=${2:?--cache needs a directory}; shift ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
	tar | documents | options) TARGETS+=("$1") ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done
[[ $LENGTH =~ ^[1-9][0-9]*$ ]] || die "--seconds needs a positive number, not '$LENGTH'"
[[ $SEED =~ ^[0-9]+$ ]] || die "--seed needs a number, not '$SEED'"
[[ $JOBS =~ ^[1-9][0-9]*$ ]] || die "--jobs needs a positive number, not '$JOBS'"
if [ ${#TARGETS[@]} = 0 ]; then TARGETS=(tar documents options); fi
command -v cargo >/dev/null || die "no cargo; install Rust with https://rustup.rs first"
mkdir -p "$CACHE"
CACHE=$(readlink -f "$CACHE")
cd "$REPO"

# quietly LOG COMMAND..: shows what it said only when it fails.
quietly() {
	local log=$1
	shift
	"$@" >"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		die "failed: $*"
	}
}

# What cargo fuzz does for a stable compiler is to pass these on; where it is not installed, building it would take longer
# than it saves.
COVERAGE=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
	-Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Cdebug-assertions)
if command -v cargo-fuzz >/dev/null; then
	quietly "$CACHE/build.log" cargo fuzz build --fuzz-dir tests/fuzz --target-dir "$CACHE" --sanitizer none
else
	quietly "$CACHE/build.log" env RUSTFLAGS="${COVERAGE[*]}" cargo build --locked --manifest-path tests/fuzz/Cargo.toml --release --bins \
		--target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir "$CACHE"
fi
say "built ${TARGETS[*]}"
PROGRAMS=$(echo "$CACHE"/*-*-*/release)

# Fuzzes one target; its log is shown when it finds something.
fuzz() {
	local target=$1 log=$CACHE/$1.log artifacts=$REPO/tests/fuzz/artifacts/$1 rc=0
	local corpus=$CACHE/corpus/$target limit=()
	# With what earlier runs found, the same seed would be another run.
	if [ "$SEED" != 0 ]; then
		corpus=$CACHE/corpus.$SEED/$target
		rm -rf "$corpus"
	fi
	mkdir -p "$corpus" "$artifacts"
	# Each unknown option is compared with all that there are.
	if [ "$target" = options ]; then limit=(-max_len=200); fi
	"$PROGRAMS/$target" -seed="$SEED" -max_total_time="$LENGTH" -timeout="$PATIENCE" -rss_limit_mb="$MEMORY_MIB" "${limit[@]}" \
		-print_final_stats=1 -artifact_prefix="$artifacts/" "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1 || rc=$?
	if [ "$rc" != 0 ]; then
		tail -n 40 "$log"
		say "FAILED: $target ended with $rc; what did it is in tests/fuzz/artifacts/$target, keep it in tests/fuzz/corpus/$target once it is mended"
		return 1
	fi
	say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
}

for target in "${TARGETS[@]}"; do
	rm -f "$CACHE/$target.passed"
	while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
	{ fuzz "$target" && touch "$CACHE/$target.passed"; } &
done
wait
for target in "${TARGETS[@]}"; do
	if [ ! -e "$CACHE/$target.passed" ]; then exit 1; fi
done
