#!/usr/bin/env bash
# People live in a Debian root that is dealt over four layers: packages are
# installed, programs compiled, trees deleted, remade and renamed. Then the
# whole tree is compared with itself after a remount and with a plain copy on
# the disk on which the same was done.
#
#   scripts/real-root.sh [--mount-program PATH] [--cache DIR] prepare|root|user|recorded|recorded-user
#
# prepare   only build the layers (debootstrap and three layers above it)
# root      the test as root
# user      the test as an ordinary user, root of a user namespace of its own
# recorded  the whole root is unpacked through a mount that an ordinary user
#           serves, who may neither give files away nor make devices, with
#           xattr_permissions=2; compared with what was packed, and used
# recorded-user  an ordinary user alone unpacks it with `layer apply`, mounts it
#           in a user namespace of its own and uses it; on the disk all of it is
#           plain files of that user
#
# The layers are built once and kept in DIR (default target/real-root); that
# takes one to three minutes and needs the network, the tests themselves do
# not. UNIONMOUNT_TEST_TRANSPORT=dev|uring|fuser names the transport to test.
# Debian and its mirror are the machine's own (apt's sources), or
# $REAL_ROOT_SUITE and $REAL_ROOT_MIRROR.
#
# Called by tests/real_root. Exit status: 0 passed, 1 failed, 77 not possible
# here (the reason is the last line), unless UNIONMOUNT_REQUIRE_FUSE=1.
# shellcheck disable=SC2016 # scripts in single quotes run in the chroot
set -euo pipefail

SELF=$(readlink -f "$0")
REPO=$(dirname "$(dirname "$SELF")")
# shellcheck source=scripts/debian.sh
. "$(dirname "$SELF")/debian.sh"
TEST_USER=unionmount-test
# Raised whenever `prepare` makes something else.
CACHE_VERSION=3

say() { echo "real-root $MODE: $*"; }
fail() { echo "real-root $MODE: FAILED: $*"; exit 1; }
skip() {
	if [ "${UNIONMOUNT_REQUIRE_FUSE:-}" = 1 ]; then fail "$* (UNIONMOUNT_REQUIRE_FUSE=1)"; fi
	echo "real-root $MODE: skipped: $*"
	exit 77
}
# Not the first python3 in PATH: a user must be able to reach it.
PYTHON=/usr/bin/python3
[ -x $PYTHON ] || PYTHON=python3

# ------------------------------------------------------------------ the layers

# in_root DIR COMMAND..: runs a command in a chroot that looks like a machine:
# /proc, /sys, /dev. All of it in namespaces of its own, so that no mount and
# no process stays behind.
in_root() {
	local root=$1
	shift
	unshare --mount --propagation private --pid --fork --kill-child -- sh -euc '
		root=$1; shift
		# A user namespace may be refused a proc of its own.
		mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
		mount --rbind /sys "$root/sys"
		mount --rbind /dev "$root/dev"
		exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
			DEBIAN_FRONTEND=noninteractive ${http_proxy:+http_proxy=$http_proxy} ${https_proxy:+https_proxy=$https_proxy} \
			STANDIN="${STANDIN:-}" DPKG_OPTION="${DPKG_OPTION:-}" \
			chroot "$root" "$@"' x "$root" "$@" </dev/null &
	# Waited for, not run in the foreground: so a signal is acted on at once,
	# and clean_up ends the job.
	wait $!
}

prepare() {
	mkdir -p "$CACHE"
	exec 8>"$CACHE/lock"
	flock 8
	if [ -e "$CACHE/ready-$CACHE_VERSION" ]; then
		flock -u 8
		return 0
	fi
	command -v debootstrap >/dev/null || skip "debootstrap is missing (apt-get install debootstrap)"
	SUITE=${REAL_ROOT_SUITE:-} MIRROR=${REAL_ROOT_MIRROR:-}
	find_mirror
	say "building the layers from $SUITE at $MIRROR (once, kept in $CACHE)"
	local new=$CACHE/new started=$SECONDS
	rm -rf --one-file-system "$CACHE"/ready-* "$CACHE/layers" "$CACHE/merged" "$new"
	mkdir "$new"
	CLEAN+=("$new")

	# Layer 1: the base, as a base image has it.
	make_debian_root "$new/l1" "$CACHE/debootstrap.log" ||
		{ tail -n 20 "$CACHE/debootstrap.log"; skip "debootstrap failed (see $CACHE/debootstrap.log)"; }

	# Layer 2: packages. The archives and lists that the test installs from
	# stay in it, so that the test is the same with and without a network.
	cp -a "$new/l1" "$new/m2"
	in_root "$new/m2" sh -euc '
		apt-get -q update
		apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io gcc libc6-dev python3-minimal git
		apt-get clean
		apt-get -q install -y --no-install-recommends --download-only python3-requests
		rm -f /var/cache/apt/*.bin
	' >"$CACHE/packages.log" 2>&1 || { tail -n 20 "$CACHE/packages.log"; skip "apt-get failed (see $CACHE/packages.log)"; }
	$PYTHON "$REPO/scripts/tree.py" layer "$new/l1" "$new/m2" "$new/l2"

	# Layer 3: files replaced and deleted; a directory deleted, one emptied and
	# filled anew (opaque), one replaced by a file and a file by a directory.
	cp -a "$new/m2" "$new/m3"
	in_root "$new/m3" sh -euc '
		rm -r /usr/share/man /usr/share/bug
		rm /etc/issue.net /usr/share/doc/bash/* /usr/bin/pager
		echo "a root over several layers" >/etc/motd
		echo "replaced" >/etc/issue
		rm -r /usr/share/locale && mkdir -p /usr/share/locale/xx && echo new >/usr/share/locale/xx/new
		rm -r /usr/share/tabset && echo "was a directory" >/usr/share/tabset
		rm /etc/hostname && mkdir /etc/hostname && echo "was a file" >/etc/hostname/file
		chmod 0700 /srv; chown 1:2 /mnt; touch -d "1960-02-03 04:05:06.789012345" /media'
	$PYTHON "$REPO/scripts/tree.py" layer "$new/m2" "$new/m3" "$new/l3" --opaque usr/share/locale

	# Layer 4: an application with one of everything.
	cp -a "$new/m3" "$new/m4"
	in_root "$new/m4" sh -euc '
		mkdir -p /opt/app/bin /opt/app/odd /opt/app/data
		useradd --system worker
		i=0; while [ $i -lt 40 ]; do
			mkdir -p /opt/app/tree/d$i/sub
			j=0; while [ $j -lt 25 ]; do echo "$i $j" >/opt/app/tree/d$i/f$j; echo "sub $i $j" >/opt/app/tree/d$i/sub/f$j; j=$((j + 1)); done
			i=$((i + 1))
		done
		echo "one file, three names" >/opt/app/data/name1
		ln /opt/app/data/name1 /opt/app/data/name2
		ln /opt/app/data/name1 /opt/app/tree/name3
		printf "#!/bin/sh\necho app\n" >/opt/app/bin/app
		cp /opt/app/bin/app /opt/app/bin/suid; chmod 4755 /opt/app/bin/suid
		cp /opt/app/bin/app /opt/app/bin/sgid; chgrp worker /opt/app/bin/sgid; chmod 2755 /opt/app/bin/sgid
		cp /bin/true /opt/app/bin/capable
		ln -s app /opt/app/bin/link; ln -s /nowhere /opt/app/bin/dangling
		mkfifo /opt/app/odd/fifo
		echo secret >/opt/app/odd/mode000; chmod 000 /opt/app/odd/mode000
		mkdir -m 1777 /opt/app/sticky; mkdir -m 2775 /opt/app/shared; mkdir -m 0555 /opt/app/readonly
		chown worker:worker /opt/app/shared
		truncate -s 32M /opt/app/data/sparse; echo end >>/opt/app/data/sparse
		touch -d "1969-12-31 00:00:00.000000001" /opt/app/data/name1
		rm /etc/motd
		python3 - <<END
import os
odd = b"/opt/app/odd/"
for name in (b"new\nline", b"sp ace", b"\xff\xfe", b"back\\\\slash", b"-", b"x" * 255, b"y" * 252):
    with open(odd + name, "wb") as file:
        file.write(name)
os.setxattr("/opt/app/data/name1", "user.colour", b"green\0blue")
os.setxattr("/opt/app/data", "user.on-a-directory", b"")
# cap_net_raw+ep, as setcap(8) stores it
os.setxattr("/opt/app/bin/capable", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
END
'
	if command -v setfacl >/dev/null; then
		setfacl -m u:7:rwx -d -m g:8:rx "$new/m4/opt/app/shared" || true
	fi
	$PYTHON "$REPO/scripts/tree.py" layer "$new/m3" "$new/m4" "$new/l4"

	$PYTHON "$REPO/scripts/tree.py" manifest "$new/m4" >"$new/merged.manifest"

	mkdir "$new/layers"
	mv "$new"/l[1-4] "$new/layers/"
	mv "$new/layers" "$CACHE/layers"
	mv "$new/m4" "$CACHE/merged"
	mv "$new/merged.manifest" "$CACHE/merged.manifest"
	rm -rf --one-file-system "$new"
	touch "$CACHE/ready-$CACHE_VERSION"
	say "layers made in $((SECONDS - started)) s"
	flock -u 8
}

# ------------------------------------------------------------------- the steps

# What is done to the root, by people inside it. It runs in the chroot of the
# mount and of the plain copy alike, so it must leave the same bytes whenever
# it runs. A check that fails ends it.
STEPS='
set -euE
trap "echo FAILED in step \"\$now\", line \$LINENO: \$BASH_COMMAND" ERR
step() { now=$*; echo "$(date +%T.%N | cut -c 1-12) $*"; }
# The stand-in is known to bring back what was deleted.
empty() { [ -n "$STANDIN" ] || test -z "$(ls -A "$1")"; }
hidden() { [ -n "$STANDIN" ] || test ! -e "$1"; }
# rename(2) itself, where mv would fall back to copying, unless it is known to
# answer EXDEV.
rename() {
	if [ -n "$STANDIN" ]; then mv -T "$1" "$2"; else python3 -c "import os, sys; os.rename(*sys.argv[1:])" "$1" "$2"; fi
}
umask 022

step "read: nothing of the layers shows"
test -z "$(find / -xdev -name ".wh.*" -print -quit)"
test ! -e /usr/share/man; test ! -e /etc/motd
test "$(cat /etc/issue)" = replaced
test "$(ls -A /usr/share/locale)" = xx
test -f /usr/share/tabset; test -f /etc/hostname/file

step "apt-get install"
apt-get -q install -y --no-download --no-install-recommends ${DPKG_OPTION:+-o Dpkg::Options::=$DPKG_OPTION} python3-requests
apt-get check
apt-get -q clean

step "dpkg --verify"
dpkg --verify >/root/verify || true
grep -vE " /(usr/share/(man|bug|locale|tabset|doc/bash)/|usr/share/tabset$|usr/bin/pager$|etc/(issue|issue.net|motd)$)" /root/verify && false

step "compile and run"
mkdir /root/c; cd /root/c
cat >main.c <<END
#include <stdio.h>
int answer(void);
int main(void) { printf("%d\n", answer()); return 0; }
END
echo "int answer(void) { return 42; }" >answer.c
gcc -O2 -Wall -c main.c; gcc -O2 -Wall -c answer.c; gcc -o prog main.o answer.o
test "$(./prog)" = 42
gcc -O2 -shared -fPIC -o libanswer.so answer.c; gcc -o prog2 main.c -L. -lanswer -Wl,-rpath,/root/c
test "$(./prog2)" = 42

step "python"
test "$(python3 -c "import json, ssl, requests; print(json.dumps(sum(range(10))))")" = 45
python3 -c "import requests; print(requests.__version__)"

step "rm -rf and make again"
rm -rf /usr/share/doc
test ! -e /usr/share/doc
mkdir /usr/share/doc
empty /usr/share/doc
hidden /usr/share/doc/bash; hidden /usr/share/doc/apt/copyright
mkdir -p /usr/share/doc/apt/examples
empty /usr/share/doc/apt/examples
echo mine >/usr/share/doc/apt/mine
rm -rf /usr/share/doc/apt; mkdir -p /usr/share/doc/apt/sub
rmdir /usr/share/doc/apt/sub; empty /usr/share/doc/apt

step "git init and commit of 5000 files"
mkdir /root/repo; cd /root/repo
export GIT_AUTHOR_DATE="2020-01-02T03:04:05Z" GIT_COMMITTER_DATE="2020-01-02T03:04:05Z"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a
git -c init.defaultBranch=main init -q .
git config gc.auto 0; git config maintenance.auto false
i=0; while [ $i -lt 5000 ]; do
	if [ $((i % 100)) = 0 ]; then mkdir d$((i / 100)); fi
	echo "content of file $i" >d$((i / 100))/f$i; i=$((i + 1))
done
git add -A; git commit -q -m all
test -z "$(git status --porcelain)"
test "$(git ls-files | wc -l)" = 5000
rm -rf d1 d2; git checkout -q .; test -z "$(git status --porcelain)"
git fsck --full --strict >/dev/null

step "rename a directory from a lower layer"
find /opt/app/tree -type f | sort | xargs sha256sum >/root/before
rename /opt/app/tree /opt/app/renamed
test ! -e /opt/app/tree
sed s,/opt/app/tree,/opt/app/renamed, /root/before | sha256sum --quiet -c
mkdir /opt/app/tree
empty /opt/app/tree; hidden /opt/app/tree/d1/f1

step "rename a directory from two layers, with changes in it"
ls -A /usr/share/perl5 | sort >/root/names
echo changed >>/usr/share/perl5/Error.pm; rm -r /usr/share/perl5/Git; echo new >/usr/share/perl5/new
rename /usr/share/perl5 /usr/share/perl5.moved
(grep -vx Git /root/names; echo new) | sort >/root/names2
ls -A /usr/share/perl5.moved | sort | cmp - /root/names2
test ! -e /usr/share/perl5
rename /usr/share/perl5.moved /usr/share/perl5
ls -A /usr/share/perl5 | sort | cmp - /root/names2
test ! -e /usr/share/perl5/Git

step "change metadata and data of lower files"
echo four >>/opt/app/data/name2
test "$(tail -n 1 /opt/app/data/name1)" = four; test "$(tail -n 1 /opt/app/renamed/name3)" = four
test "$(stat -c %h /opt/app/data/name1)" = 3
chmod o+t /opt/app/bin/sgid; chown 3:4 /opt/app/bin/link -h; chmod u+r /opt/app/odd/mode000
sed -i s/app/changed/ /opt/app/bin/app
printf X | dd of=/opt/app/data/sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null
[ -n "$STANDIN" ] || test "$(stat -c %b /opt/app/data/sparse)" -lt 1000
truncate -s 5 /etc/services; : >/etc/protocols
touch -d "2100-01-02 03:04:05.678901234" /opt/app/bin/dangling -h /etc/group-
mv /opt/app/odd/mode000 /opt/app/odd/sp*ace /opt/app/readonly/
ln /opt/app/bin/suid /opt/app/bin/suid2
[ -n "$STANDIN" ] || rm /opt/app/odd/y* /opt/app/odd/x*; [ -n "$STANDIN" ] || test -z "$(find /opt/app/odd -name "x*")"
cp -a /usr/share/zoneinfo /root/zoneinfo; diff -r --no-dereference /usr/share/zoneinfo /root/zoneinfo
rm -rf /usr/share/zoneinfo; mv /root/zoneinfo /usr/share/zoneinfo
find /usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +
step "done"
'

# -------------------------------------------------------------------- the test

# fuse-overlayfs stands in for unionmount while these scripts are developed. It
# fails some of what follows, so that it is only good for that.

# Everything of one run is below $T, with a copy of the program: a daemon of
# this run is told by the path of its executable.
daemons() { pgrep -f "^$T/bin/" || true; }

mount_union() {
	rm -f "$T/mount.err"
	timeout 30 "$PROGRAM" -o "lowerdir=$T/l4:$T/l3:$T/l2:$T/l1,upperdir=$T/upper,workdir=$T/workdir${UNIONMOUNT_TEST_TRANSPORT:+,transport=$UNIONMOUNT_TEST_TRANSPORT}" "$T/m" \
		</dev/null >"$T/mount.err" 2>&1 || fail "mount: $(cat "$T/mount.err")"
	mountpoint -q "$T/m" || fail "the mount program reported success, but nothing is mounted"
}

unmount_union() {
	local i
	for ((i = 0; i < 50; i++)); do
		# The namespaces of a chroot may take a moment to go.
		if [ -n "$STANDIN" ]; then
			if umount "$T/m" 2>"$T/umount.err"; then break; fi
		else
			if timeout 60 "$PROGRAM" umount "$T/m" >"$T/umount.err" 2>&1; then break; fi
		fi
		sleep 0.1
	done
	if mountpoint -q "$T/m"; then fail "unmount: $(cat "$T/umount.err")"; fi
	for ((i = 0; i < 100; i++)); do
		if [ -z "$(daemons)" ]; then return 0; fi
		sleep 0.1
	done
	fail "the daemon is still there 10 s after the unmount"
}

manifest() {
	local out=$1 root=$2
	shift 2
	$PYTHON "$TOOLS/tree.py" manifest "$root" "$@" >"$T/$out" || fail "manifest of $root"
}
compare() { $PYTHON "$TOOLS/tree.py" compare "$@"; }

# Runs where layers l1 to l4 and the plain copy lie below $T: as root, or as
# root of a user namespace. What is compared and why:
#   mount = plain copy     before anything was done: the layers merge rightly
#   mount = remount        afterwards, in every respect, the inode numbers too
#   remount = plain copy   afterwards, but for what real-root.expect names
run_test() {
	export STANDIN
	local since rc=0 ino=()
	# The stand-in gives out other inode numbers after a copy-up and a remount.
	if [ -z "$STANDIN" ]; then ino=(--ino); fi
	mkdir -p "$T/upper" "$T/workdir" "$T/m"
	# The root of the view is the upper's own directory; an engine gives it the
	# attributes of the image's root.
	chmod --reference="$T/l4/" "$T/upper"
	chown --reference="$T/l4/" "$T/upper"
	touch --reference="$T/l4/" "$T/upper"
	touch "$T/stamp"
	mount_union
	say "mounted"
	manifest before.mount "$T/m" "${ino[@]}"
	drop_ino "$T/before.mount"
	compare "$T/merged.manifest" "$T/before.mount" || fail "the fresh mount is not the merged tree"

	since=$(date +%s)
	# Nothing above may have the same second as what the steps write.
	sleep 1.1
	since=$((since + 1))
	# Only the mount as root need keep what dpkg syncs: the rest is in a hurry.
	export DPKG_OPTION=--force-unsafe-io
	in_root "$T/copy" bash -c "$STEPS" >"$T/steps.copy" 2>&1 || { tail -n 30 "$T/steps.copy"; fail "the steps on the plain copy: the test itself is at fault"; }
	say "steps done on the plain copy"
	if [ "$MODE" = root ]; then DPKG_OPTION=; fi
	in_root "$T/m" bash -c "$STEPS" >"$T/steps.mount" 2>&1 || { tail -n 30 "$T/steps.mount"; fail "the steps on the mount"; }
	say "steps done on the mount"
	manifest after.mount "$T/m" "${ino[@]}"
	manifest after.copy "$T/copy"
	unmount_union
	if [ -z "$STANDIN" ]; then check_upper; fi
	mount_union
	manifest after.remount "$T/m" "${ino[@]}"
	unmount_union
	compare "$T/after.mount" "$T/after.remount" || { say "FAILED: the remount is not what was left"; rc=1; }
	drop_ino "$T/after.remount"
	compare "$T/after.copy" "$T/after.remount" --since "$since" --expect "$TOOLS/real-root.expect" ||
		{ say "FAILED: the mount is not what the plain copy is"; rc=1; }
	if [ -n "$(find "$T/l1/" "$T/l2/" "$T/l3/" "$T/l4/" -cnewer "$T/stamp" -print -quit)" ]; then
		say "FAILED: a lower layer was written: $(find "$T"/l?/ -cnewer "$T/stamp" | head -n 5)"
		rc=1
	fi
	if [ $rc != 0 ]; then exit 1; fi
	say "passed in $SECONDS s"
}

# A plain copy has other inode numbers, so that they take no part there.
drop_ino() { sed -i 's/"ino": [0-9]*, //' "$1"; }

# What an engine that reads the upper directly relies on.
check_upper() {
	local found
	# A name of 252 bytes or more leaves no room for `.wh.` before it: its
	# whiteout may be a device.
	found=$(LC_ALL=C find "$T/upper" -regextype posix-extended -type c -regex '.*/[^/]{1,251}' ! -path "$T/upper/dev/*" | head -n 3)
	[ -z "$found" ] || fail "device nodes in the upper: $found"
	[ -f "$T/upper/opt/app/odd/.wh.sp ace" ] || fail "no whiteout for a deleted lower file"
	[ -f "$T/upper/usr/share/doc/.wh..wh..opq" ] || [ -f "$T/upper/usr/share/.wh.doc" ] || fail "no opaque mark on the remade directory"
	found=$(find "$T/workdir" -type f | head -n 3)
	[ -z "$found" ] || fail "left in the work directory: $found"
}

CLEAN=()
MADE_USER=
clean_up() {
	local rc=$? i path
	trap - EXIT
	for i in $(jobs -p); do kill -9 "$i" 2>/dev/null || true; done
	if [ -n "${T:-}" ]; then
		for ((i = 0; i < 20; i++)); do
			if ! mountpoint -q "$T/m" 2>/dev/null; then break; fi
			umount "$T/m" 2>/dev/null || sleep 0.1
		done
		# A dead or busy mount: off the tree at least.
		umount -l "$T/m" 2>/dev/null || true
		for i in $(daemons); do kill "$i" 2>/dev/null || true; done
		if [ -n "$(daemons)" ]; then sleep 2; fi
		for i in $(daemons); do kill -9 "$i" 2>/dev/null || true; done
	fi
	if [ "$rc" = 1 ] && [ -n "${REAL_ROOT_KEEP:-}" ]; then
		echo "kept: ${CLEAN[*]}"
	else
		for path in "${CLEAN[@]}"; do rm -rf --one-file-system "$path" || true; done
	fi
	if [ -n "$MADE_USER" ]; then userdel "$TEST_USER" 2>/dev/null || true; fi
	exit "$rc"
}

# The part of the `user` test that runs as the user, root of its namespace. The
# layers come as tar streams on descriptors: the user need not reach the cache.
if [ "${1:-}" = --inside ]; then
	trap clean_up EXIT
	trap 'exit 1' INT TERM
	TOOLS=$T/bin
	cd "$T"
	if [ "$MODE" = recorded-user ]; then
		# shellcheck source=scripts/real-root-recorded.sh
		. "$TOOLS/real-root-recorded.sh"
		use_recorded
		exit 0
	fi
	for i in 1 2 3 4 5; do
		mkdir "$T/l$i"
		tar -C "$T/l$i" -xpf - --warning=no-timestamp --delay-directory-restore --acls --xattrs --xattrs-include='*' --numeric-owner <&$((i + 2))
	done
	mv "$T/l5" "$T/copy"
	exec 3<&- 4<&- 5<&- 6<&- 7<&-
	say "layers unpacked"
	run_test
	exit 0
fi

PROGRAM=${UNIONMOUNT_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount}
CACHE=$REPO/target/real-root
MODE=
while [ $# -gt 0 ]; do
	case $1 in
	--mount-program) PROGRAM=${2:?--mount-program needs a path}; shift ;;
	--cache) CACHE=${2:?--cache needs a directory}; shift ;;
	prepare | root | user | recorded | recorded-user) MODE=$1 ;;
	-h | --help) sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//;p}' "$SELF"; exit 0 ;;
	*) echo "real-root: unknown argument '$1' (see --help)" >&2; exit 1 ;;
	esac
	shift
done
[ -n "$MODE" ] || { echo "real-root: prepare, root, user, recorded or recorded-user? (see --help)" >&2; exit 1; }

[ -c /dev/fuse ] || skip "/dev/fuse is missing"
[ "$(id -u)" = 0 ] || skip "needs root, to build the layers"
[ "$MODE" = prepare ] || [ -x "$PROGRAM" ] || fail "no such program: $PROGRAM"
trap clean_up EXIT
trap 'exit 1' INT TERM
# A relative path would be another one in the namespaces.
mkdir -p "$CACHE"
CACHE=$(readlink -f "$CACHE")
PROGRAM=$(realpath -m "$PROGRAM")
prepare
if [ "$MODE" = prepare ]; then exit 0; fi

STANDIN=
case $("$PROGRAM" --version 2>&1) in unionmount*) ;; *fuse-overlayfs*) STANDIN=1 ;; esac

# /var/tmp: on a disk, and where an ordinary user gets to.
T=$(mktemp -d "/var/tmp/um-real-$MODE.XXXXXX")
CLEAN+=("$T")
chmod 755 "$T"
mkdir "$T/bin"
cp "$PROGRAM" "$T/bin/unionmount"
chmod 755 "$T/bin/unionmount"
PROGRAM=$T/bin/unionmount

if [ "$MODE" = root ]; then
	TOOLS=$REPO/scripts
	for i in 1 2 3 4; do ln -s "$CACHE/layers/l$i" "$T/l$i"; done
	cp -a "$CACHE/merged" "$T/copy"
	cp "$CACHE/merged.manifest" "$T/"
	run_test
	exit 0
fi

chmod a+rw /dev/fuse 2>/dev/null || true
exec 9>/run/lock/unionmount-real-root.lock
flock 9
if ! id "$TEST_USER" >/dev/null 2>&1; then
	useradd --system --no-create-home --home-dir /nonexistent --shell /bin/sh "$TEST_USER"
	MADE_USER=1
fi
if [ "$MODE" = recorded ]; then
	TOOLS=$REPO/scripts
	# shellcheck source=scripts/real-root-recorded.sh
	. "$TOOLS/real-root-recorded.sh"
	run_recorded "$(id -u "$TEST_USER")"
	exit 0
fi

command -v newuidmap >/dev/null || skip "newuidmap is missing (apt-get install uidmap)"
# System users get no subordinate ids from useradd by themselves.
if ! grep -q "^$TEST_USER:" /etc/subuid; then usermod --add-subuids 2100000000-2100065535 "$TEST_USER"; fi
if ! grep -q "^$TEST_USER:" /etc/subgid; then usermod --add-subgids 2100000000-2100065535 "$TEST_USER"; fi
cp "$REPO/scripts/"{tree.py,debian.sh,real-root.expect,real-root-recorded.sh} "$SELF" "$T/bin/"
chmod 755 "$T"/bin/*
chown "$TEST_USER:" "$T"
as_user=(runuser -u "$TEST_USER" -- unshare --user --map-root-user --map-auto --mount --propagation private --)
inside=("${as_user[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 MODE="$MODE" T="$T" PROGRAM="$PROGRAM" STANDIN="$STANDIN"
	UNIONMOUNT_TEST_TRANSPORT="${UNIONMOUNT_TEST_TRANSPORT:-}" bash "$T/bin/$(basename "$SELF")" --inside)
"${as_user[@]}" true 2>"$T/err" || skip "an ordinary user gets no user namespace here: $(cat "$T/err")"
if [ "$MODE" = recorded-user ]; then
	# shellcheck source=scripts/real-root-recorded.sh
	. "$REPO/scripts/real-root-recorded.sh"
	unpack_as_user
	"${inside[@]}"
	exit 0
fi

# A user cannot make device nodes.
grep -v '^\["dev/' "$CACHE/merged.manifest" >"$T/merged.manifest"
stream() { tar -C "$1" -cf - --exclude='./dev/*' --acls --xattrs --xattrs-include='*' --numeric-owner --sparse .; }
"${inside[@]}" \
	3< <(stream "$CACHE/layers/l1") 4< <(stream "$CACHE/layers/l2") 5< <(stream "$CACHE/layers/l3") \
	6< <(stream "$CACHE/layers/l4") 7< <(stream "$CACHE/merged")
