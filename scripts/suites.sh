#!/usr/bin/env bash
# Test suites that others wrote, on a mount and on ext4 itself: what passes
# there must pass on the mount.
#
#   scripts/suites.sh [--quick] [--only SUITE].. [--transport NAME].. [--seconds N]
#                     [--mount-program PATH] [--cache DIR] [--keep]
#   scripts/suites.sh --install [--only SUITE].. [--cache DIR]
#
# --only SUITE      out of pjdfstest, fsx, stress; may be repeated
# --quick           what CI has time for: a minute and a half after the
#                   installation. Without it the whole takes three hours
# --transport NAME  dev, uring or fuser; may be repeated. Default: dev, and uring
#                   where it is switched on
# --seconds N       how long each stressor runs (default 60)
# --cache DIR       where the suites are installed (default target/suites)
# --install         only install the suites, run nothing
# --keep            leave the logs of a failed run where they are
#
# pjdfstest  each of its tests passes, fails or is skipped on the mount exactly
#            as on ext4: in an empty union, and in a directory that only lower
#            layers have. As root, with two users, remounts and a second disk.
# fsx        a million operations (quick: 8,000) on a file that starts in a
#            lower layer, with and without `volatile`: reads, writes, mappings,
#            truncate, fallocate, punch hole, copy_file_range, sendfile, fsync,
#            dropping caches; and, with every operation that leaves the size
#            alone, on a file that is not truncated first.
# stress     stress-ng's class `filesystem` and some more, each with --verify.
#
# After all of it nothing is in the daemon's log at level warn, its descriptors
# are back where they were, its memory is bounded, the work directory is empty,
# and the lower layers are untouched.
#
# Needs root and /dev/fuse. As root on Debian it installs what is missing
# (libacl1-dev, stress-ng); pjdfstest and fsx come from crates.io.
# $UNIONMOUNT_BIN     the program to test (default target/release/unionmount)
# Exit status: 0 passed, 1 failed, 77 not possible here, unless
# UNIONMOUNT_REQUIRE_FUSE=1.
set -euo pipefail
exec </dev/null

REPO=$(dirname "$(dirname "$(readlink -f "$0")")")
PJDFSTEST_VERSION=0.2.2
FSX_VERSION=0.3.2

say() { printf '%5d s  %s\n' "$SECONDS" "$*"; }
FAILED=()
failed() {
	FAILED+=("$*")
	say "FAILED: $*"
}
die() { echo "suites: $*" >&2; exit 1; }
skip() {
	if [ "${UNIONMOUNT_REQUIRE_FUSE:-}" = 1 ]; then die "$* (UNIONMOUNT_REQUIRE_FUSE=1)"; fi
	echo "suites: skipped: $*"
	exit 77
}

SUITES=() TRANSPORTS=() QUICK='' LENGTH=60 KEEP='' INSTALL=''
PROGRAM=${UNIONMOUNT_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount}
CACHE=$REPO/target/suites
while [ $# -gt 0 ]; do
	case $1 in
	--only) SUITES+=("${2:?--only needs a suite}"); shift ;;
	--transport) TRANSPORTS+=("${2:?--transport needs a name}"); shift ;;
	--seconds) LENGTH=${2:?--seconds needs a number}; shift ;;
	--mount-program) PROGRAM=${2:?--mount-program needs a path}; shift ;;
	--cache) CACHE=${2:?--cache needs a directory}; shift ;;
	--quick) QUICK=1 ;;
	--keep) KEEP=1 ;;
	--install) INSTALL=1 ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done
if [ ${#SUITES[@]} = 0 ]; then SUITES=(pjdfstest fsx stress); fi
for suite in "${SUITES[@]}"; do
	case $suite in pjdfstest | fsx | stress) ;; *) die "there is no suite '$suite' (see --help)" ;; esac
done
[[ $LENGTH =~ ^[1-9][0-9]*$ ]] || die "--seconds needs a positive number, not '$LENGTH'"
if [ ${#TRANSPORTS[@]} = 0 ]; then
	TRANSPORTS=(dev)
	if grep -qsx '[Y1]' /sys/module/fuse/parameters/enable_uring; then TRANSPORTS+=(uring); fi
fi

# shellcheck source=scripts/debian.sh
. "$REPO/scripts/debian.sh"

[ "$(id -u)" = 0 ] || skip "needs root"
if [ -z "$INSTALL" ]; then
	[ -c /dev/fuse ] || skip "/dev/fuse is missing"
	[ -x "$PROGRAM" ] || die "no such program: $PROGRAM (cargo build --release)"
	PROGRAM=$(realpath "$PROGRAM")
fi

# ---------------------------------------------------------------- installation

wanted() {
	local suite
	for suite in "${SUITES[@]}"; do if [ "$suite" = "$1" ]; then return 0; fi; done
	return 1
}

# install_crate NAME VERSION [OPTION FOR cargo]..
install_crate() {
	local started=$SECONDS
	if [ "$(cat "$CACHE/$1.version" 2>/dev/null)" = "$2" ] && [ -x "$CACHE/bin/$1" ]; then return 0; fi
	# A little optimised, quickly built.
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		cargo install --quiet --locked --root "$CACHE" --target-dir "$CACHE/build" "${@:3}" --version "=$2" "$1" \
		>"$CACHE/$1.log" 2>&1 || die "cannot install $1: $(tail -n 3 "$CACHE/$1.log")"
	echo "$2" >"$CACHE/$1.version"
	say "$1 $2 installed in $((SECONDS - started)) s"
}

mkdir -p "$CACHE"
CACHE=$(readlink -f "$CACHE")
exec 8>"$CACHE/lock"
flock 8
install_packages suites 2>"$CACHE/apt.log" || skip "$(tail -n 1 "$CACHE/apt.log")"
if wanted pjdfstest; then install_crate pjdfstest $PJDFSTEST_VERSION --debug; fi
# A million operations are worth the compile time of an optimised program.
if wanted fsx; then install_crate fsx $FSX_VERSION; fi
flock -u 8
exec 8>&-
if [ -n "$INSTALL" ]; then exit 0; fi
INSTALLED=$SECONDS

# ------------------------------------------------------------- mounts and users

T=$(mktemp -d /var/tmp/um-suites.XXXXXX)
chmod 755 "$T"
DAEMON=
IMAGE=$T/disk.img
MADE_USERS=()
clean_up() {
	local rc=$? i path user
	trap - EXIT
	# With what they started: it would keep the mount busy.
	for i in $(jobs -p); do
		for path in $(ps -o pid= --ppid "$i") "$i"; do kill -9 "$path" 2>/dev/null || true; done
	done
	for path in m other disk; do
		for ((i = 0; i < 50; i++)); do
			if ! mountpoint -q "$T/$path"; then break; fi
			umount "$T/$path" 2>/dev/null || sleep 0.1
		done
		umount -l "$T/$path" 2>/dev/null || true
	done
	if [ -n "$DAEMON" ] && [ "$(readlink "/proc/$DAEMON/exe")" = "$T/unionmount" ]; then kill -9 "$DAEMON" 2>/dev/null || true; fi
	for user in "${MADE_USERS[@]}"; do userdel "$user" 2>/dev/null || true; done
	if [ $rc != 0 ] && [ -n "$KEEP" ]; then
		echo "kept: $T/logs"
	else
		rm -rf --one-file-system "$T"
	fi
	rm -f "$IMAGE"
	exit $rc
}
trap clean_up EXIT
trap 'exit 1' INT TERM

cp "$PROGRAM" "$T/unionmount"
# mount(8) remounts by a helper that it looks for in /sbin.
mkdir "$T/sbin"
ln -s "$T/unionmount" "$T/sbin/mount.fuse.unionmount"
mkdir "$T/logs" "$T/m" "$T/disk" "$T/other"
# The upper's disk and the yardstick are one: an ext4 of our own, which can be remounted. In memory
# where there is room for it: fsx would wait for a disk four times as long as it works.
if [ "$(df --output=avail -B 1G /dev/shm 2>/dev/null | tail -n 1)" -ge 8 ] 2>/dev/null; then IMAGE=$(mktemp /dev/shm/um-suites.XXXXXX); fi
truncate -s 8G "$IMAGE"
mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 "$IMAGE"
mount -o loop,discard "$IMAGE" "$T/disk"
mount -t tmpfs tmpfs "$T/other"
mkdir "$T/disk/plain" "$T/disk/empty"
chmod 755 "$T/disk/plain"

# lower_layers: two layers with a directory /deep/below/here that both have.
lower_layers() {
	local i
	for i in 0 1; do
		mkdir -p "$T/disk/l$i/deep/below/here"
		echo "layer $i" >"$T/disk/l$i/deep/below/here/file$i"
		head -c 262144 /dev/urandom >"$T/disk/l$i/big$i"
	done
	chmod -R go+rX "$T/disk/l0" "$T/disk/l1"
}
lower_layers
lowers_digest() { tar -C "$T/disk" --sort=name --format=posix --pax-option=delete=atime -cf - l0 l1 empty | sha256sum; }
LOWERS=$(lowers_digest)

# union LOWERDIR.. -- OPTION..: mounts a union of them with a fresh upper.
union() {
	local lowers=() options=()
	while [ $# -gt 0 ] && [ "$1" != -- ]; do lowers+=(--lower "$T/disk/$1"); shift; done
	shift
	while [ $# -gt 0 ]; do options+=(-o "$1"); shift; done
	rm -rf "$T/disk/upper" "$T/disk/work"
	mkdir "$T/disk/upper" "$T/disk/work"
	: >"$T/logs/daemon"
	RUST_LOG=warn timeout 30 "$T/unionmount" mount "${lowers[@]}" --upper "$T/disk/upper" --work "$T/disk/work" "${options[@]}" \
		--log-file "$T/logs/daemon" "$T/m" >"$T/logs/mount" 2>&1 || die "mount: $(cat "$T/logs/mount")"
	DAEMON=$(pgrep -f "^$T/unionmount mount" || true)
	[ -n "$DAEMON" ] || die "the mount has no daemon"
}

# no_union WHAT: unmounts, and looks at what is left.
no_union() {
	local left
	timeout 120 "$T/unionmount" umount "$T/m" >"$T/logs/umount" 2>&1 || failed "$1: umount: $(cat "$T/logs/umount")"
	DAEMON=
	if [ -s "$T/logs/daemon" ]; then failed "$1: the daemon says: $(sed 's/^[^ ]* //' "$T/logs/daemon" | cut -c 1-300 | sort | uniq -c | sort -rn | head -n 5)"; fi
	left=$(find "$T/disk/work/work" -mindepth 1 | head -n 3)
	[ -z "$left" ] || failed "$1: left in the work directory: $left"
	[ "$(lowers_digest)" = "$LOWERS" ] || failed "$1: a lower layer was changed"
}

# What the daemon holds when the kernel remembers as little as it can.
held() {
	sync -f "$T/m"
	echo 2 >/proc/sys/vm/drop_caches
	# A daemon gives memory back when nothing happened for a second.
	sleep 4
	find "/proc/$DAEMON/fd" -mindepth 1 -maxdepth 1 | wc -l
	awk '/^(VmRSS|Threads)/ {print $2}' "/proc/$DAEMON/status"
}

# ------------------------------------------------------------------ pjdfstest

# Where a mount is known not to be ext4, and says so in src/guide/limits.md:
# link_count_max       pathconf(3) answers 127 for every file system that the C
#                      library does not know, so that the test does not begin
KNOWN=(link::link_count_max)
but_for_known() { grep -vE "^($(IFS='|'; echo "${KNOWN[*]}")) " "$1"; }

pjdfstest() {
	local user transport lowers place what
	user=um-suites-$$
	useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
	MADE_USERS+=("$user")
	cat >"$T/pjdfstest.toml" <<-END
		[features]
		posix_fallocate = {}
		rename_ctime = {}
		stat_st_birthtime = {}
		utime_now = {}
		utimensat = {}
		[settings]
		naptime = 0.02
		allow_remount = true
		[dummy_auth]
		entries = [["nobody", "$(id -gn nobody)"], ["$user", "$user"]]
	END
	run_pjdfstest ext4 "$T/disk/plain"
	say "pjdfstest on ext4: $(grep "^Summary" "$T/logs/pjdfstest.ext4.out")"
	for transport in "${TRANSPORTS[@]}"; do
		for lowers in "empty" "l0 l1"; do
			place=$T/m what=$transport
			if [ "$lowers" != empty ]; then place=$T/m/deep/below/here what=$transport.lower; fi
			# shellcheck disable=SC2086 # a list of layers
			union $lowers -- "transport=$transport"
			run_pjdfstest "$what" "$place"
			no_union "pjdfstest over $what"
			if diff -u <(but_for_known "$T/logs/pjdfstest.ext4") <(but_for_known "$T/logs/pjdfstest.$what") >"$T/logs/pjdfstest.diff"; then
				say "pjdfstest over $what: $(grep "^Summary" "$T/logs/pjdfstest.$what.out"); as on ext4 but for ${#KNOWN[@]} known differences"
			else
				grep -E '^[-+][^-+]' "$T/logs/pjdfstest.diff" || true
				grep -A 3 -F FAILED "$T/logs/pjdfstest.$what.out" | head -n 60
				failed "pjdfstest over $what: not as on ext4"
			fi
		done
	done
}

# run_pjdfstest WHAT DIR: the outcome of each test, by name.
run_pjdfstest() {
	# shellcheck disable=SC2016 # expanded in there
	NO_COLOR=1 timeout 580 unshare --mount --propagation private sh -euc '
		mount -t overlay -o "lowerdir=$1:$(readlink -f /sbin)" sbin "$(readlink -f /sbin)"
		shift
		exec "$@"' sh "$T/sbin" "$CACHE/bin/pjdfstest" -c "$T/pjdfstest.toml" -s "$T/other" -p "$2" >"$T/logs/pjdfstest.$1.out" 2>&1 || true
	grep -q '^Summary: ' "$T/logs/pjdfstest.$1.out" || failed "pjdfstest on $1 did not come to its end: $(tail -n 1 "$T/logs/pjdfstest.$1.out")"
	sed -nE 's/^([a-z0-9_:]+) +(ok|FAILED|skipped)$/\1 \2/p' "$T/logs/pjdfstest.$1.out" | sort >"$T/logs/pjdfstest.$1"
	sed -i -n '/^[^[:space:]]/p;/^\t/p' "$T/logs/pjdfstest.$1.out"
}

# ------------------------------------------------------------------------ fsx

fsx() {
	local transport options count=1000000
	if [ -n "$QUICK" ]; then count=8000; fi
	cat >"$T/fsx.sizes.toml" <<-END
		[weights]
		close_open = 2.0
		invalidate = 1.0
		mapread = 10.0
		mapwrite = 10.0
		read = 10.0
		write = 10.0
		truncate = 5.0
		fsync = 0.2
		fdatasync = 0.2
		posix_fallocate = 2.0
		punch_hole = 5.0
		sendfile = 2.0
		posix_fadvise = 1.0
		copy_file_range = 5.0
	END
	cat >"$T/fsx.block.toml" <<-END
		blockmode = true
		[weights]
		invalidate = 1.0
		mapread = 10.0
		mapwrite = 10.0
		read = 10.0
		write = 10.0
		truncate = 0.0
		fsync = 0.2
		punch_hole = 5.0
		sendfile = 2.0
		posix_fadvise = 1.0
		copy_file_range = 5.0
	END
	for transport in "${TRANSPORTS[@]}"; do
		for options in "" volatile; do
			union l0 l1 -- "transport=$transport" ${options:+"$options"}
			run_fsx "$transport${options:+, $options}" sizes big0 "$count" &
			run_fsx "$transport${options:+, $options}" block big1 "$count" &
			wait
			if [ -e "$T/logs/fsx.failed" ]; then
				while read -r line; do failed "$line"; done <"$T/logs/fsx.failed"
				rm "$T/logs/fsx.failed"
			fi
			no_union "fsx over $transport${options:+, $options}"
		done
	done
}

# run_fsx WHAT CONFIG FILE COUNT: in pieces, since fsx keeps every mapping that it read through: after half a million
# operations it may make no more, and the kernel looks at all of them at each truncate(2).
run_fsx() {
	local seed left=$4 piece ended=0 started=$SECONDS
	while [ "$left" -gt 0 ]; do
		seed=$RANDOM piece=$((left < 20000 ? left : 20000)) left=$((left > 20000 ? left - 20000 : 0))
		if ! fsx_piece "$2" "$T/m/$3" $seed $piece; then
			# It asks for empty ranges now and then, which posix_fallocate(3) refuses, and ends.
			mv "$T/logs/fsx.$2" "$T/logs/fsx.$2.mount"
			cp "$T/disk/l1/$3" "$T/disk/plain/$3" 2>/dev/null || cp "$T/disk/l0/$3" "$T/disk/plain/$3"
			if [ $ended -lt 20 ] && ! fsx_piece "$2" "$T/disk/plain/$3" $seed $piece &&
				[ "$(tail -n 1 "$T/logs/fsx.$2")" = "$(tail -n 1 "$T/logs/fsx.$2.mount")" ]; then
				left=$((left + piece)) ended=$((ended + 1))
				say "fsx $2, seed $seed: ends on ext4 as well, at the same operation; another seed"
				continue
			fi
			mv "$T/logs/fsx.$2.mount" "$T/logs/fsx.$2"
			tail -n 40 "$T/logs/fsx.$2"
			echo "fsx over $1, $2 (seed $seed, with $left operations left)" >>"$T/logs/fsx.failed"
			return
		fi
	done
	say "fsx over $1, $2: $4 operations in $((SECONDS - started)) s"
}

# fsx_piece CONFIG FILE SEED COUNT
fsx_piece() { "$CACHE/bin/fsx" -f "$T/fsx.$1.toml" -S "$3" -N "$4" -P "$T/logs" "$2" >"$T/logs/fsx.$1" 2>&1; }

# ------------------------------------------------------------------ stress-ng

# Those of the class that never come near --temp-path: they strain /proc, other
# file systems' mounts, or processes.
ELSEWHERE="binderfs bind-mount eventfd ioprio procfs"
MORE="link mmap"

stress() {
	local transport stressor stressors=() before after threads allowed
	for stressor in $(stress-ng --class 'filesystem?' 2>&1 | sed 's/.*: //') $MORE; do
		case " $ELSEWHERE ${stressors[*]} " in *" $stressor "*) ;; *) stressors+=("$stressor") ;; esac
	done
	for transport in "${TRANSPORTS[@]}"; do
		union l0 l1 -- "transport=$transport"
		mkdir "$T/m/tmp"
		# Threads and buffers are made when they are first needed.
		run_stress "$T/m/tmp" 2 dentry hdd getdent >/dev/null || true
		mapfile -t before < <(held)
		if [ -n "$QUICK" ]; then
			run_stress_or_compare "$transport" 12 "${stressors[@]}"
		else
			for stressor in "${stressors[@]}"; do run_stress_or_compare "$transport" "$LENGTH" "$stressor"; done
		fi
		mapfile -t after < <(held)
		say "stress-ng over $transport: ${#stressors[@]} stressors; descriptors, KiB and threads before: ${before[*]}, after: ${after[*]}"
		# A thread keeps a descriptor of its own.
		threads=$((after[2] > before[2] ? after[2] - before[2] : 0))
		allowed=$((before[0] + threads + 16))
		[ "${after[0]}" -le $allowed ] || failed "stress-ng over $transport: descriptors went from ${before[0]} to ${after[0]}"
		allowed=$((before[1] + threads * 64 + 8192))
		[ "${after[1]}" -le $allowed ] || failed "stress-ng over $transport: memory went from ${before[1]} to ${after[1]} KiB"
		# What was ended in the middle may have left immutable files.
		chattr -R -f -ia "$T/m/tmp" || true
		find "$T/m/tmp" -mindepth 1 -delete
		no_union "stress-ng over $transport"
	done
}

# run_stress DIR SECONDS STRESSOR..: all of them at a time.
run_stress() {
	local dir=$1 length=$2 arguments=() stressor
	shift 2
	for stressor in "$@"; do arguments+=("--$stressor" 1); done
	if [ $# = 1 ]; then arguments[1]=2; fi
	# Some put files where they are started. The daemon holds a descriptor for each file that is open without a name, and
	# may not have more of them than this shell where it lacks CAP_SYS_RESOURCE.
	(cd "$dir" && ulimit -n $(($(ulimit -Hn) / 20 < 1024 ? 1024 : $(ulimit -Hn) / 20)) && exec timeout $((length * 3 + 60)) stress-ng --temp-path "$dir" --timeout "$length" --verify --oomable --hdd-bytes 64M --fallocate-bytes 64M \
		--copy-file-bytes 128M --mmap-bytes 16M --mmap-file --iomix-bytes 64M --readahead-bytes 16M --log-brief "${arguments[@]}" 2>&1)
}

run_stress_or_compare() {
	local transport=$1 length=$2 log=$T/logs/stress
	shift 2
	if run_stress "$T/m/tmp" "$length" "$@" >"$log"; then return 0; fi
	mkdir -p "$T/disk/plain/tmp"
	if [ $# -gt 1 ]; then
		# Which of them was it, and does it fail without the others?
		grep -iE 'fail|error|unsuccessful' "$log" | head -n 20
		for stressor in $(failed_stressors "$log"); do run_stress_or_compare "$transport" 4 "$stressor"; done
		[ -n "$(failed_stressors "$log")" ] || failed "stress-ng over $transport: $(tail -n 1 "$log")"
	elif run_stress "$T/disk/plain/tmp" "$length" "$@" >"$log.ext4"; then
		grep -iE 'fail|error|unsuccessful' "$log" | head -n 20
		failed "stress-ng --$1 over $transport, but not on ext4"
	else
		say "stress-ng --$1 fails on ext4 as well"
	fi
}

failed_stressors() { sed -nE 's/.*(fail|error): +\[[0-9]+\] ([a-z-]+): .*/\2/p' "$1" | sort -u; }

# ------------------------------------------------------------------------- run

for suite in "${SUITES[@]}"; do $suite; done
if [ ${#FAILED[@]} -gt 0 ]; then
	printf 'suites: FAILED: %s\n' "${FAILED[@]}"
	exit 1
fi
say "suites passed: ${SUITES[*]} over ${TRANSPORTS[*]} in $((SECONDS - INSTALLED)) s"
