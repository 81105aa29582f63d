#!/usr/bin/env bash
# Counts the instructions of operations of the merged tree, which do not depend on what else the machine does,
# and compares them with those that were written down.
#
#   scripts/instructions.sh            compare with benches/core/instructions.txt; more than 10 % more is a failure
#   scripts/instructions.sh --write    write them down
#
# Counted by callgrind (valgrind) in the profile that tests are built in, in the program and its libraries; what the
# kernel does is not in it. Another compiler or C library counts a little differently: write them down anew with it.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "$0")")")"
FILE=benches/core/instructions.txt
OPERATIONS=(lookup missing getattr create unlink copy-up)
FEW=200 MANY=1200

# shellcheck source=scripts/debian.sh
. scripts/debian.sh
install_packages count || { echo "instructions: cannot install valgrind" >&2; exit 1; }
program=$(cargo bench --locked --profile checked --bench instructions --no-run --message-format json 2>/dev/null |
	sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$program" ] || { echo "instructions: the benchmark was not built; see cargo bench --profile checked --bench instructions --no-run" >&2; exit 1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

count() { # OPERATION TIMES
	TMPDIR=$scratch valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
		sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

compiler=$(rustc --version)
{
	echo "# instructions for one operation; $compiler"
	for operation in "${OPERATIONS[@]}"; do
		few=$(count "$operation" $FEW)
		many=$(count "$operation" $MANY)
		echo "$operation $(((many - few) / (MANY - FEW)))"
	done
} >"$scratch/counts"

if [ "${1:-}" = --write ]; then
	cp "$scratch/counts" "$FILE"
	cat "$FILE"
	exit
fi
verdict=0
while read -r operation now; do
	[ "$operation" != "#" ] || continue
	before=$(awk -v name="$operation" '$1 == name {print $2}' "$FILE")
	[ -n "$before" ] || { echo "$operation: $now instructions, none were written down; run scripts/instructions.sh --write"; verdict=1; continue; }
	echo "$operation: $now instructions, $before were written down"
	[ $((now * 100)) -le $((before * 110)) ] || { echo "$operation: more than 10 % more"; verdict=1; }
done <"$scratch/counts"
exit "$verdict"
