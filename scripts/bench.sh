#!/usr/bin/env bash
# Speed beside kernel overlayfs and fuse-overlayfs, in turn within one run.
#
#   scripts/bench.sh [--rounds N] [--systems a,b,..] [--only REGEX] [--quick]
#                    [--dir DIR] [--list] [--tsv FILE] [--transports]
#
# --rounds N     how often each row is run on each system (default 5); the
#                table shows medians
# --systems LIST out of native (a plain copy on the disk), overlay (kernel),
#                fuse-overlayfs (1.x of the distribution), fuse-overlayfs-2
#                (2.x from crates.io), unionmount; default: all that are there.
#                unionmount-fuser, -dev, -uring and -passthrough are unionmount
#                with that transport, or with io=passthrough (which see)
# --transports   systems overlay and unionmount with each of its transports, and
#                a second table: what one request costs on each
# --store ..     images and containers beside umoci, podman and skopeo instead;
#                what follows are the arguments of scripts/bench-store.sh
# --only REGEX   only rows whose name (see --list) matches, as grep -E
# --quick        about a tenth of the work: for trying the script, not for
#                figures
# --dir DIR      work below DIR (default /var/tmp); must be a disk, not tmpfs
# --list         print the rows and end
# --tsv FILE     also keep every single figure
#
# $UNIONMOUNT_BIN     the unionmount to measure (default target/release/unionmount)
# $FUSE_OVERLAYFS_2   the 2.x to measure (default ~/.cargo/bin/fuse-overlayfs)
#
# Needs root, for kernel overlayfs and for dropping caches. A single time says
# little on a shared machine; the ratio to kernel overlayfs in the same run is
# what counts, and so each round does one row on all systems before the next.
set -euo pipefail

REPO=$(dirname "$(dirname "$(readlink -f "$0")")")
die() { echo "bench: $*" >&2; exit 1; }

# name, group (rows of one group share one mount), title
ROWS='
find-fresh	find	find, fresh mount (45 k entries, 8 layers)
find-again	find	find, again
tar-fresh	tar	tar of 15 k small files, fresh mount
tar-again	tar	tar, again
grep-warm	tar	grep -r, warm
open-close	cached	50 k open+close of a cached file
open-read-close	cached	50 k open+read+close of a cached file
readdir	cached	readdir of a cached directory
stat	cached	stat of a cached file
untar	untar	untar 9 k files
rm-untarred	untar	rm -rf of them
rm-lower	rm	rm -rf of a lower tree
create	names	5 k creates
rename	names	5 k renames
unlink	names	5 k unlinks
create-threads	threads	4 threads creating
chmod-lower	chmod	chmod -R over lower files (copy-up)
append-lower	append	append to lower files (copy-up)
git-add	git	git add of 5 k files
git-commit	git	git commit
git-reset	git	git reset --hard, all files missing
read-seq	read	sequential read
read-random	read	random read
mmap	read	mmap
write-random	write	random write + fsync
write-seq	write	sequential write + fsync
fsync-4k	write	4 KiB fsyncs
first-write	first	first 4 KiB write to a 1 GiB lower file
find-64	deep	find over 64 layers, fresh mount
missing-64	deep	3 k missing names there
'
ROWS=$(sed '/^$/d' <<<"$ROWS")

ROUNDS=5 ONLY=. SYSTEMS='' QUICK='' BASE=/var/tmp TSV='' CROSSINGS=''
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) ROUNDS=${2:?--rounds needs a number}; shift ;;
	--only) ONLY=${2:?--only needs a regular expression}; shift ;;
	--systems) SYSTEMS=${2:?--systems needs a list}; shift ;;
	--dir) BASE=${2:?--dir needs a directory}; shift ;;
	--tsv) TSV=${2:?--tsv needs a file}; shift ;;
	--quick) QUICK=1 ;;
	--transports) CROSSINGS=1 ;;
	--store) shift; exec "$REPO/scripts/bench-store.sh" "$@" ;;
	--list) awk -F '\t' '{printf "%-16s %s\n", $1, $3}' <<<"$ROWS"; exit 0 ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done
[[ $ROUNDS =~ ^[1-9][0-9]*$ ]] || die "--rounds needs a positive number, not '$ROUNDS'"
if [ -n "$TSV" ]; then TSV=$(realpath "$TSV"); fi
[ "$(id -u)" = 0 ] || die "needs root (kernel overlayfs, dropping caches)"

# ---------------------------------------------------------------- the systems

UNIONMOUNT=${UNIONMOUNT_BIN:-$REPO/target/release/unionmount}
FO1=$(command -v fuse-overlayfs || true)
FO2=${FUSE_OVERLAYFS_2:-$HOME/.cargo/bin/fuse-overlayfs}
is_version() { [ -x "$1" ] && "$1" --version 2>&1 | grep -qE "fuse-overlayfs(: version)? $2\."; }
# ~/.cargo/bin often comes first in PATH and would be measured twice.
if ! is_version "$FO1" 1; then FO1=/usr/bin/fuse-overlayfs; fi

have() {
	case $1 in
	native) true ;;
	overlay) grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null ;;
	fuse-overlayfs) is_version "$FO1" 1 ;;
	fuse-overlayfs-2) is_version "$FO2" 2 ;;
	unionmount-uring) [ -x "$UNIONMOUNT" ] && grep -qx '[Y1]' /sys/module/fuse/parameters/enable_uring ;;
	unionmount | unionmount-fuser | unionmount-dev | unionmount-passthrough) [ -x "$UNIONMOUNT" ] ;;
	*) die "unknown system '$1' (native, overlay, fuse-overlayfs, fuse-overlayfs-2, unionmount[-fuser|-dev|-uring|-passthrough])" ;;
	esac
}
systems=()
if [ -n "$CROSSINGS" ] && [ -z "$SYSTEMS" ]; then
	SYSTEMS=overlay,unionmount-fuser,unionmount-dev
	if have unionmount-uring; then SYSTEMS+=,unionmount-uring; else echo "bench: io_uring is switched off: echo Y > /sys/module/fuse/parameters/enable_uring" >&2; fi
fi
if [ -n "$SYSTEMS" ]; then
	for s in ${SYSTEMS//,/ }; do
		have "$s" || die "$s is not there to be measured"
		systems+=("$s")
	done
else
	for s in native overlay fuse-overlayfs fuse-overlayfs-2 unionmount; do
		if have "$s"; then systems+=("$s"); else echo "bench: without $s, which is not there" >&2; fi
	done
fi

# The rows to run; those that need a tool that is missing are left out. The
# expression is about the name alone, not the rest of the line.
ROWS=$(awk -F '\t' -v re="$ONLY" '$1 ~ re' <<<"$ROWS")
if ! command -v git >/dev/null; then
	echo "bench: no git here, its rows are left out" >&2
	ROWS=$(grep -v '^git-' <<<"$ROWS" || true)
fi
[ -n "$ROWS$CROSSINGS" ] || die "no row matches '$ONLY' (see --list)"
wanted() { grep -q "^$1	" <<<"$ROWS"; }

# ---------------------------------------------------------------- the ground

TOP=$(mktemp -d "$BASE/um-bench.XXXXXX")
MOUNTED=
unmount() {
	local i
	if [ -z "$MOUNTED" ]; then return 0; fi
	for ((i = 0; i < 50; i++)); do
		if umount "$MOUNTED" 2>/dev/null; then break; fi
		sleep 0.1
	done
	if mountpoint -q "$MOUNTED"; then umount -l "$MOUNTED" || true; fi
	MOUNTED=
	# A daemon that is still leaving would take its time from the next row. The
	# programs were copied below $TOP: no other daemon has such a command line.
	for ((i = 0; i < 100; i++)); do
		if ! pgrep -f "^$TOP/bin/" >/dev/null; then return 0; fi
		sleep 0.05
	done
	echo "bench: a daemon does not end: $(pgrep -af "^$TOP/bin/")" >&2
	pgrep -f "^$TOP/bin/" | xargs -r kill -9 || true
}
finish() {
	local rc=$?
	trap - EXIT
	unmount || true
	rm -rf --one-file-system "$TOP"
	exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM

fs=$(findmnt -n -o FSTYPE -T "$TOP")
if [ "$fs" = tmpfs ]; then die "$BASE is a tmpfs; --dir DIR on a disk"; fi

mkdir -p "$TOP/bin" "$TOP/l" "$TOP/native" "$TOP/m" "$TOP/fresh"
# ext4 does not hand out again the inodes that were freed in the last minute,
# and looks at each of them to find that out: after an `rm -rf`, creates nearby
# are up to thirty times slower. With this flag each new directory in here is
# put in another corner of the disk.
chattr +T "$TOP/fresh" 2>/dev/null || true
fresh=0
rustc -O --edition 2024 -o "$TOP/bin/workload" "$REPO/benches/workload.rs"
W=$TOP/bin/workload
for s in "${systems[@]}"; do
	case $s in
	fuse-overlayfs) cp "$FO1" "$TOP/bin/$s" ;;
	fuse-overlayfs-2) cp "$FO2" "$TOP/bin/$s" ;;
	unionmount*) cp "$UNIONMOUNT" "$TOP/bin/$s" ;;
	esac
done

if [ -n "$QUICK" ]; then
	PERCENT=10 OPENS=5000 LISTS=50 STATS=50000 UNTAR=900 NAMES=500 COPYUPS=300 GIT=500
	CROSS=5000 READ_MIB=32 RANDOM_READS=1000 WRITE_MIB=16 RANDOM_WRITES=500 FSYNCS=20 BIG_MIB=64 MISSING=300
else
	PERCENT=100 OPENS=50000 LISTS=500 STATS=500000 UNTAR=9000 NAMES=5000 COPYUPS=3000 GIT=5000
	CROSS=50000 READ_MIB=256 RANDOM_READS=20000 WRITE_MIB=256 RANDOM_WRITES=10000 FSYNCS=200 BIG_MIB=1024 MISSING=3000
fi

echo "bench: making the trees in $TOP" >&2
# Layer names are short: all 64 must fit in the 4 KiB that mount(2) takes.
cd "$TOP/l"
tree=() deep=()
for i in {1..8}; do tree+=("t$i"); done
for i in {1..64}; do deep+=("d$i"); done
mkdir "${tree[@]}" "${deep[@]}" data work
"$W" make-tree "$PERCENT" "${tree[@]}"
"$W" make-deep "${deep[@]}"
"$W" make-files work/copyup "$COPYUPS"
"$W" make-files work/git "$GIT"
"$W" make-data data/read "$READ_MIB"
if wanted first-write; then "$W" make-data data/big "$BIG_MIB"; fi
"$W" make-files "$TOP/untar" "$UNTAR"
tar -C "$TOP/untar" -cf "$TOP/untar.tar" .
rm -rf "$TOP/untar"

have_native() { [[ " ${systems[*]} " == *" native "* ]]; }
if have_native; then
	mkdir "$TOP/native/tree" "$TOP/native/deep"
	"$W" make-tree "$PERCENT" "$TOP/native/tree"
	for d in "${deep[@]}"; do cp -a "$d/." "$TOP/native/deep/"; done
	cp -a data work "$TOP/native/"
fi

join() { local IFS=:; echo "$*"; }

# A new empty directory, $FRESH.
next_fresh() {
	fresh=$((fresh + 1))
	FRESH=../fresh/$fresh
	mkdir "$FRESH"
}

# mount_stack SYSTEM STACK [OPTIONS]: a fresh upper over the layers of STACK; the tree to
# work in is $M afterwards. `native` gets the merged tree itself, the groups
# that change it make a copy of what they change.
mount_stack() {
	local system=$1 stack=$2 lower options
	if [ "$system" = native ]; then
		M=$TOP/native/$stack
		return 0
	fi
	case $stack in
	tree) lower=$(join "${tree[@]}") ;;
	deep) lower=$(join "${deep[@]}") ;;
	*) lower=$stack:d1 ;;
	esac
	next_fresh
	mkdir "$FRESH/upper" "$FRESH/work"
	options=lowerdir=$lower,upperdir=$FRESH/upper,workdir=$FRESH/work
	M=$TOP/m
	if [ "$system" = overlay ]; then
		mount -t overlay overlay -o "$options" "$M"
	else
		case $system in
		unionmount-passthrough) options+=,io=passthrough ;;
		unionmount-*) options+=,transport=${system#unionmount-} ;;
		esac
		timeout 30 "$TOP/bin/$system" -o "$options${3:+,$3}" "$M" </dev/null >/dev/null 2>"$TOP/mount.err" ||
			die "$system does not mount: $(cat "$TOP/mount.err")"
	fi
	MOUNTED=$M
	mountpoint -q "$M" || die "$system reported success, but nothing is mounted"
}

CAN_DROP=1
cold() {
	sync
	if [ -n "$CAN_DROP" ] && ! echo 3 2>/dev/null >/proc/sys/vm/drop_caches; then
		CAN_DROP=
		echo "bench: caches cannot be dropped here, 'fresh mount' rows are warm" >&2
	fi
}

RESULTS=$TOP/results
: >"$RESULTS"
# t ROW WORKLOAD ARGS..: one figure. A row that was not asked for still runs,
# since later rows of its group may need what it makes, but is not kept.
t() {
	local row=$1 seconds
	shift
	# What was written before would be written back during the row.
	sync
	if ! seconds=$(timeout 600 "$W" "$@" 2>"$TOP/row.err"); then
		echo "bench: $row on $system failed: $(tail -n 3 "$TOP/row.err")" >&2
		return 0
	fi
	if wanted "$row"; then printf '%s\t%s\t%s\n' "$row" "$system" "$seconds" >>"$RESULTS"; fi
}

# ---------------------------------------------------------------- the groups

expected_entries=
g_find() {
	local entries
	mount_stack "$system" tree
	cold
	t find-fresh time find "$M"
	t find-again time find "$M"
	# A system that shows less has less to do.
	entries=$(find "$M" | wc -l)
	if [ -z "$expected_entries" ]; then expected_entries=$entries; fi
	[ "$entries" = "$expected_entries" ] || die "$system shows $entries entries, others $expected_entries"
}
g_tar() {
	mount_stack "$system" tree
	cold
	t tar-fresh time tar -C "$M/small" -cf - .
	t tar-again time tar -C "$M/small" -cf - .
	t grep-warm time grep -r -l -e f00d "$M/small"
}
g_cached() {
	mount_stack "$system" tree
	t open-close open-close "$M/one/cached" "$OPENS"
	t open-read-close open-read-close "$M/one/cached" "$OPENS"
	t readdir readdir "$M/one" "$LISTS"
	t stat stat "$M/one/cached" "$STATS"
}
# A place to make new entries in; on native a new directory, so that all
# systems start with an empty one.
scratch() {
	if [ "$system" = native ]; then
		next_fresh
		M=$FRESH
	else
		mount_stack "$system" tree
	fi
	M=$M/scratch
	mkdir "$M"
}
g_untar() {
	scratch
	t untar time tar -C "$M" -xf "$TOP/untar.tar"
	t rm-untarred time rm -rf "$M"
}
g_rm() {
	mount_stack "$system" tree
	if [ "$system" = native ]; then
		next_fresh
		cp -a "$M/small" "$FRESH/small"
		t rm-lower time rm -rf "$FRESH/small"
	else
		t rm-lower time rm -rf "$M/small"
	fi
}
g_names() {
	scratch
	t create create "$M" "$NAMES"
	t rename rename "$M" "$NAMES"
	t unlink unlink "$M" "$NAMES"
}
g_threads() {
	scratch
	t create-threads create-threads "$M" "$NAMES" 4
}
# Copy-up has no counterpart on a plain disk.
g_chmod() {
	if [ "$system" = native ]; then return 0; fi
	mount_stack "$system" work
	t chmod-lower time chmod -R go-rwx "$M/copyup"
}
g_append() {
	if [ "$system" = native ]; then return 0; fi
	mount_stack "$system" work
	t append-lower append "$M/copyup"
}
g_git() {
	mount_stack "$system" work
	if [ "$system" = native ]; then
		next_fresh
		cp -a "$M/git" "$FRESH/git"
		M=$FRESH/git
	else
		M=$M/git
	fi
	local git=(git -C "$M" -c user.name=bench -c user.email=bench@localhost -c gc.auto=0
		-c maintenance.auto=false -c safe.directory='*' -c init.defaultBranch=main)
	"${git[@]}" init -q
	t git-add time "${git[@]}" add -A
	t git-commit time "${git[@]}" commit -q -m all
	rm -rf "$M"/dir*
	t git-reset time "${git[@]}" reset -q --hard
}
g_read() {
	mount_stack "$system" data
	cold
	t read-seq seqread "$M/read"
	cold
	t read-random randread "$M/read" "$RANDOM_READS"
	cold
	t mmap mmap "$M/read"
}
g_write() {
	scratch
	# The file to write into is there, in the upper and on the disk.
	"$W" make-data "$M/random" "$WRITE_MIB"
	t write-random randwrite "$M/random" "$RANDOM_WRITES"
	t write-seq seqwrite "$M/sequential" "$WRITE_MIB"
	t fsync-4k fsyncs "$M/small-steps" "$FSYNCS"
}
g_first() {
	if [ "$system" = native ]; then return 0; fi
	mount_stack "$system" data
	t first-write firstwrite "$M/big"
}
g_deep() {
	mount_stack "$system" deep
	cold
	t find-64 time find "$M"
	t missing-64 missing "$M" "$MISSING"
}

# What one request costs. `miss`: names of which each is looked up once. `getattr`:
# with timeout=0 the kernel caches no attributes.
COSTS=$TOP/costs
: >"$COSTS"
crossings() {
	local request=$1 path=$2 clients cost pid
	pid=$(pgrep -f "^$TOP/bin/$system " | head -n 1)
	for clients in 1 2 4; do
		if cost=$(timeout 600 "$W" crossing "$request" "$path" "$((CROSS / clients))" "$clients" "$pid" 2>"$TOP/row.err"); then
			echo "$request $clients $system $cost" >>"$COSTS"
		else
			echo "bench: $request on $system failed: $(tail -n 3 "$TOP/row.err")" >&2
		fi
	done
}
g_crossing() {
	case $system in unionmount*) ;; *) return 0 ;; esac
	mount_stack "$system" tree
	crossings miss "$M"
	unmount
	mount_stack "$system" tree timeout=0
	crossings getattr "$M/one/cached"
}

# ---------------------------------------------------------------- the rounds

groups=$(cut -f 2 <<<"$ROWS" | uniq)
if [ -n "$CROSSINGS" ]; then groups="crossing $groups"; fi
for ((round = 1; round <= ROUNDS; round++)); do
	for group in $groups; do
		echo "bench: round $round of $ROUNDS, $group" >&2
		# Another order in each round: whoever comes first would always find
		# the disk in the same state.
		for ((i = 0; i < ${#systems[@]}; i++)); do
			system=${systems[(i + round) % ${#systems[@]}]}
			"g_$group"
			unmount
			rm -rf "$TOP/fresh/"*
		done
	done
done

if [ -n "$TSV" ]; then cp "$RESULTS" "$TSV"; fi
cut -f 1,3 <<<"$ROWS" >"$TOP/rows"
echo
echo "Linux $(uname -r), $(nproc) processors, $fs, $ROUNDS rounds${QUICK:+, quick (too little work for figures)}; ratio to kernel overlayfs, medians"
echo
"$W" report "$TOP/rows" "$RESULTS" "${systems[@]}"
if [ -n "$CROSSINGS" ]; then
	echo
	measured=()
	for s in "${systems[@]}"; do case $s in unionmount*) measured+=("$s") ;; esac done
	"$W" crossings "$COSTS" "${measured[@]}"
fi
