#!/usr/bin/env bash
# Speed beside kernel overlayfs and fuse-overlayfs, in turn within one run.
#
#   scripts/bench.sh [--rounds N] [--systems a,b,..] [--only REGEX] [--quick]
#                    [--rootless] [--dir DIR] [--list] [--tsv FILE] [--plot FILE]
#                    [--transports]
#
# --rounds N     how often each row is run on each system (default 5); the
#                table shows medians
# --systems LIST out of native (a plain copy on the disk), overlay (kernel),
#                fuse-overlayfs (1.x of the distribution), fuse-overlayfs-2
#                (2.x from crates.io), unionmount; default: all that are there.
#                unionmount-fuser, -dev, -uring and -passthrough are unionmount
#                with that transport, or with io=passthrough (which see);
#                unionmount-before is another build, for before and after
# --rootless     all of it as an ordinary user in a user namespace (unshare -Urm),
#                kernel overlayfs with userxattr
# --transports   systems overlay and unionmount with each of its transports, and
#                a second table: what one request costs on each, for 1 to 8 clients
# --store ..     images and containers beside umoci, podman and skopeo instead;
#                what follows are the arguments of scripts/bench-store.sh
# --only REGEX   only rows whose name (see --list) matches, as grep -E
# --quick        about a tenth of the work: for trying the script, not for
#                figures
# --dir DIR      work below DIR (default /var/tmp); must be a disk, not tmpfs
# --list         print the rows and end
# --tsv FILE     also keep every single figure
# --plot FILE    also draw the table as a bar chart (SVG)
#
# $UNIONMOUNT_BIN     the unionmount to measure (default target/release/unionmount)
# $UNIONMOUNT_BEFORE  the other build, of the system unionmount-before
# $FUSE_OVERLAYFS_2   the 2.x to measure (default ~/.cargo/bin/fuse-overlayfs)
#
# Needs root, for disks, kernel overlayfs and dropping caches. A single time says
# little on a shared machine; the ratio to kernel overlayfs in the same run is
# what counts, and so each round does one row on all systems before the next.
#
# Each system has a fresh ext4 of its own for each group of rows: ext4 does not
# hand out again the inodes that were freed in the last minutes and looks at each
# of them to find that out, so what one row removes would make the creates of the
# next up to thirty times slower.
#
# Rows whose programs are not here are left out, and that is said: git, gcc,
# cargo, sqlite3, npm and debootstrap (both with network, beforehand).
set -euo pipefail

REPO=$(dirname "$(dirname "$(readlink -f "$0")")")
die() { echo "bench: $*" >&2; exit 1; }

# name, group (rows of one group share one mount), title
ROWS='
find-fresh	find	find, fresh mount (57 k entries, 8 layers)
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
chmod-volatile	chmod_volatile	chmod -R over lower files, volatile
append-volatile	append_volatile	append to lower files, volatile
git-add	git	git add of 5 k files
git-commit	git	git commit
git-reset	git	git reset --hard, all files missing
read-seq	read	sequential read of 1 GiB, fresh
read-again	read	sequential read, again
read-random	read	random read
mmap	read	mmap
write-random	write	50 k random writes + fsync
write-seq	write	sequential write + fsync
fsync-4k	write	4 KiB fsyncs
first-write	first	first 4 KiB write to a 1 GiB lower file
mount-64	deep	64 layers: mount and first ls
find-64	deep	64 layers: find
missing-64	deep	64 layers: 3 k missing names
gcc-64	deep	64 layers: gcc with 2.5 k headers
compile-c	c	make of a C project, 150 units
compile-rust	rust	cargo build, 60 modules
sqlite	sqlite	SQLite, 10 k transactions on a lower database
npm-install	npm	npm ci of 10 k files
apt-install	apt	apt-get install of git and python3 in a chroot
'
ROWS=$(sed '/^$/d' <<<"$ROWS")

ROUNDS=5 ONLY=. SYSTEMS='' QUICK='' BASE=/var/tmp TSV='' PLOT='' CROSSINGS='' ROOTLESS=''
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) ROUNDS=${2:?--rounds needs a number}; shift ;;
	--only) ONLY=${2:?--only needs a regular expression}; shift ;;
	--systems) SYSTEMS=${2:?--systems needs a list}; shift ;;
	--dir) BASE=${2:?--dir needs a directory}; shift ;;
	--tsv) TSV=${2:?--tsv needs a file}; shift ;;
	--plot) PLOT=${2:?--plot needs a file}; shift ;;
	--quick) QUICK=1 ;;
	--rootless) ROOTLESS=1 ;;
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
if [ -n "$PLOT" ]; then PLOT=$(realpath "$PLOT"); fi
[ "$(id -u)" = 0 ] || die "needs root (disks, kernel overlayfs, dropping caches)"

# ---------------------------------------------------------------- the systems

UNIONMOUNT=${UNIONMOUNT_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount}
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
	unionmount-before) [ -x "${UNIONMOUNT_BEFORE:-}" ] ;;
	unionmount | unionmount-fuser | unionmount-dev | unionmount-passthrough) [ -x "$UNIONMOUNT" ] ;;
	*) die "unknown system '$1' (native, overlay, fuse-overlayfs, fuse-overlayfs-2, unionmount[-before|-fuser|-dev|-uring|-passthrough])" ;;
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

# The rows to run; those that need what is missing are left out. The expression is about the name
# alone, not the rest of the line.
ROWS=$(awk -F '\t' -v re="$ONLY" '$1 ~ re' <<<"$ROWS")
wanted() { grep -q "^$1	" <<<"$ROWS"; }
# leave_out REGEX REASON
leave_out() {
	if ! awk -F '\t' -v re="^($1)\$" '$1 ~ re {found = 1} END {exit !found}' <<<"$ROWS"; then return 0; fi
	echo "bench: without $1: $2" >&2
	ROWS=$(awk -F '\t' -v re="^($1)\$" '$1 !~ re' <<<"$ROWS")
}
command -v git >/dev/null || leave_out 'git-.*' "no git here"
command -v gcc >/dev/null || leave_out 'gcc-64|compile-c' "no gcc here"
command -v sqlite3 >/dev/null || leave_out sqlite "no sqlite3 here"
command -v npm >/dev/null || leave_out npm-install "no npm here"
# An ordinary user need not reach root's own programs.
TOOLS=$(rustc --print sysroot 2>/dev/null || true)/bin
USER_ID=47110
apart=(unshare --mount --propagation private --)
if [ -n "$ROOTLESS" ]; then
	apart=(setpriv "--reuid=$USER_ID" "--regid=$USER_ID" --clear-groups unshare --user --map-root-user --mount --)
fi
"${apart[@]}" "$TOOLS/cargo" --version >/dev/null 2>&1 || leave_out compile-rust "no cargo that this user can run"
if [ -n "$ROOTLESS" ]; then
	leave_out apt-install "dpkg wants more owners than one"
elif ! command -v debootstrap >/dev/null; then
	leave_out apt-install "no debootstrap here"
fi

# ---------------------------------------------------------------- the ground

[ "$(findmnt -n -o FSTYPE -T "$BASE")" != tmpfs ] || die "$BASE is a tmpfs; --dir DIR on a disk"
TOP=$(mktemp -d "$BASE/um-bench.XXXXXX")
chmod 755 "$TOP"
finish() {
	local rc=$?
	trap - EXIT
	if [ -n "${COLD:-}" ]; then kill "$COLD" 2>/dev/null || true; fi
	if mountpoint -q "$TOP/disk"; then umount -l "$TOP/disk" || true; fi
	rm -rf --one-file-system "$TOP"
	exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM

mkdir -p "$TOP/bin" "$TOP/l" "$TOP/native" "$TOP/disk"
(cd "$REPO" && cargo build --quiet --release --locked --package workload)
cp "${CARGO_TARGET_DIR:-$REPO/target}/release/workload" "$TOP/bin/workload"
export W=$TOP/bin/workload BIN=$TOP/bin LAYERS=$TOP/l NATIVE=$TOP/native DISK=$TOP/disk
export RESULTS=$TOP/out/results UNTAR=$TOP/untar.tar NPM_CACHE=$TOP/npm ASK=$TOP/ask ANSWER=$TOP/answer
export ROWS ROOTLESS PATH=$TOOLS:$PATH PACKAGES="git python3 file"
for s in "${systems[@]}"; do
	case $s in
	fuse-overlayfs) cp "$FO1" "$TOP/bin/$s" ;;
	fuse-overlayfs-2) cp "$FO2" "$TOP/bin/$s" ;;
	unionmount-before) cp "$UNIONMOUNT_BEFORE" "$TOP/bin/$s" ;;
	unionmount*) cp "$UNIONMOUNT" "$TOP/bin/$s" ;;
	esac
done

if [ -n "$QUICK" ]; then
	PERCENT=10 COPYUPS=300 GIT=500 FILES=900 READ_MIB=32 BIG_MIB=64 UNITS=15 MODULES=6 TRANSACTIONS=300
	export OPENS=5000 LISTS=50 STATS=50000 NAMES=500 CROSS=5000 RANDOM_READS=1000 WRITE_MIB=16
	export RANDOM_WRITES=500 FSYNCS=20 MISSING=300
else
	PERCENT=100 COPYUPS=3000 GIT=5000 FILES=9000 READ_MIB=1024 BIG_MIB=1024 UNITS=150 MODULES=60 TRANSACTIONS=10000
	export OPENS=50000 LISTS=500 STATS=500000 NAMES=5000 CROSS=50000 RANDOM_READS=20000 WRITE_MIB=512
	export RANDOM_WRITES=50000 FSYNCS=200 MISSING=3000
fi

echo "bench: making the trees in $TOP" >&2
cd "$TOP/l"
tree=() deep=()
for i in {1..8}; do tree+=("t$i"); done
for i in {1..64}; do deep+=("d$i"); done
mkdir "${tree[@]}" "${deep[@]}" data work "$TOP/out"
"$W" make-tree "$PERCENT" "${tree[@]}"
"$W" make-deep "${deep[@]}"
"$W" make-files work/copyup "$COPYUPS"
"$W" make-files work/git "$GIT"
"$W" make-c work/c "$UNITS"
"$W" make-rust work/rust "$MODULES"
"$W" make-sql work/sql "$TRANSACTIONS"
mkdir work/sqlite
if wanted sqlite; then
	sqlite3 work/sqlite/db 'create table t(n integer, x text);
		with recursive r(n) as (select 1 union all select n + 1 from r where n < 20000) insert into t select n, hex(randomblob(50)) from r;'
fi
if wanted npm-install; then
	mkdir work/npm
	packages=(lodash@4 date-fns@3 core-js@3 rxjs@7)
	if [ -n "$QUICK" ]; then packages=(lodash@4); fi
	if ! (cd work/npm && npm install --silent --no-audit --no-fund --ignore-scripts --cache "$NPM_CACHE" "${packages[@]}" &&
		npm ci --silent --no-audit --no-fund --ignore-scripts --cache "$NPM_CACHE") >"$TOP/npm.log" 2>&1; then
		leave_out npm-install "npm reaches no registry: $(tail -n 1 "$TOP/npm.log")"
	fi
	rm -rf work/npm/node_modules
fi
if wanted apt-install; then
	# shellcheck source=scripts/debian.sh
	. "$REPO/scripts/debian.sh"
	find_mirror
	mkdir debian
	debian_root() {
		make_debian_root "$TOP/l/debian/root" "$TOP/debootstrap.log"
		# shellcheck disable=SC2016 # expanded in there
		chroot debian/root sh -c 'apt-get -q update && apt-get -q install -y --no-install-recommends --download-only $0' "$PACKAGES" >"$TOP/apt.log" 2>&1
	}
	if ! debian_root; then leave_out apt-install "no Debian root could be made: $(tail -n 1 "$TOP/debootstrap.log")"; fi
fi
"$W" make-data data/read "$READ_MIB"
if wanted first-write; then "$W" make-data data/big "$BIG_MIB"; fi
"$W" make-files "$TOP/untar" "$FILES"
tar -C "$TOP/untar" -cf "$UNTAR" .
rm -rf "$TOP/untar"
if [[ " ${systems[*]} " == *" native "* ]]; then
	mkdir "$TOP/native/tree" "$TOP/native/deep"
	"$W" make-tree "$PERCENT" "$TOP/native/tree"
	for d in "${deep[@]}"; do cp -a "$d/." "$TOP/native/deep/"; done
	cp -a data work "$TOP/native/"
	if [ -d debian ]; then cp -a debian "$TOP/native/"; fi
fi
if [ -n "$ROOTLESS" ]; then chown -R "$USER_ID:$USER_ID" "$TOP/l" "$TOP/native" "$TOP/out" "$TOP/npm" 2>/dev/null || true; fi

# Drops caches when it is asked to.
mkfifo -m 666 "$ASK" "$ANSWER"
while read -r <"$ASK"; do
	sync
	echo 3 2>/dev/null >/proc/sys/vm/drop_caches || echo "bench: caches cannot be dropped here, 'fresh' rows are warm" >&2
	echo dropped >"$ANSWER"
done &
COLD=$!

# fresh_disk: an ext4 that nothing was ever removed from. All its inodes are written beforehand, so
# that none is written while a row is timed.
fresh_disk() {
	rm -f "$TOP/disk.img"
	truncate -s 8G "$TOP/disk.img"
	mkfs.ext4 -q -N 100000 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard "$TOP/disk.img"
	mount -o loop,noatime "$TOP/disk.img" "$DISK"
	if [ -n "$ROOTLESS" ]; then chown "$USER_ID:$USER_ID" "$DISK"; fi
	chmod 755 "$DISK"
}

# ---------------------------------------------------------------- the rounds

groups=$(cut -f 2 <<<"$ROWS" | uniq)
if [ -n "$CROSSINGS" ]; then groups="miss getattr $groups"; fi
[ -n "$groups" ] || die "no row matches '$ONLY' (see --list)"
for ((round = 1; round <= ROUNDS; round++)); do
	for group in $groups; do
		echo "bench: round $round of $ROUNDS, $group" >&2
		# Another order in each round: the first one would always find the machine in the same state.
		for ((i = 0; i < ${#systems[@]}; i++)); do
			fresh_disk
			"${apart[@]}" "$REPO/scripts/bench-rows.sh" "$group" "${systems[(i + round) % ${#systems[@]}]}"
			for ((try = 0; try < 50; try++)); do
				if umount "$DISK" 2>/dev/null; then break; fi
				sleep 0.1
			done
			if mountpoint -q "$DISK"; then die "the disk of $group is still in use"; fi
		done
	done
done

if [ -n "$TSV" ]; then cp "$RESULTS" "$TSV"; fi
cut -f 1,3 <<<"$ROWS" >"$TOP/rows"
touch "$RESULTS"
what="Linux $(uname -r), $(nproc) processors, ${ROOTLESS:+rootless, }ext4, $ROUNDS rounds${QUICK:+, quick (too little work for figures)}"
echo
echo "$what; ratio to kernel overlayfs, medians"
echo
"$W" report "$TOP/rows" "$RESULTS" "${systems[@]}"
if [ -n "$PLOT" ]; then "$W" chart "$what" "$TOP/rows" "$RESULTS" "${systems[@]}" >"$PLOT"; fi
if [ -s "$RESULTS.memory" ]; then
	echo
	echo "The daemon's memory for each entry of the tree after find, bytes (median):"
	sort -k 1,1 -k 2,2n "$RESULTS.memory" | awk -F '\t' '$1 != last {if (last) print "* " last ": " v[int((n + 1) / 2)]; last = $1; n = 0} {v[++n] = $2} END {print "* " last ": " v[int((n + 1) / 2)]}'
fi
if [ -n "$CROSSINGS" ]; then
	echo
	measured=()
	for s in "${systems[@]}"; do case $s in unionmount*) measured+=("$s") ;; esac done
	"$W" crossings "$RESULTS.costs" "${measured[@]}"
fi
