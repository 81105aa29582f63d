#!/usr/bin/env bash
# unionmount in one minute: builds it, makes a small stack of layers, mounts it
# and shows what happens where.
#
#   scripts/demo.sh [--no-build]
#
# Works as root and as an ordinary user. As root it installs what is missing
# (Debian and its relatives); as a user it says what to install.
# $UNIONMOUNT_BIN names a binary to show instead of the one built here.
set -euo pipefail

SELF=$(readlink -f "$0")
REPO=$(dirname "$(dirname "$SELF")")
# shellcheck source=scripts/debian.sh
. "$REPO/scripts/debian.sh"

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
die() { echo "demo: $*" >&2; exit 1; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s\n' "$@"; }
# Shows a command as one would type it, and what it prints.
show() {
	printf '%s$ %s%s\n' "$dim" "$*" "$plain"
	(cd "$D" && bash -c "$*") 2>&1 | sed 's/^/    /'
}

# ---------------------------------------------------------------- what is needed

prepare() {
	local purposes=(demo)
	command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
	if [ -z "${UNIONMOUNT_BIN:-}" ] && [ -z "$NO_BUILD" ]; then
		command -v cargo >/dev/null || die "Rust is needed to build unionmount: see https://rustup.rs"
		purposes+=(build)
	fi
	install_packages "${purposes[@]}" || exit 1
	if [ ! -c /dev/fuse ]; then modprobe fuse 2>/dev/null || true; fi
	[ -c /dev/fuse ] || die "/dev/fuse is missing: the kernel's FUSE module is not loaded (modprobe fuse)"
	if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then die "/dev/fuse may not be opened by $(id -un): as root, chmod 666 /dev/fuse"; fi

	if [ -n "${UNIONMOUNT_BIN:-}" ]; then
		PROGRAM=$(readlink -f "$UNIONMOUNT_BIN")
	else
		PROGRAM=${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount
		if [ -z "$NO_BUILD" ]; then
			heading "Building unionmount (cargo build --release)"
			(cd "$REPO" && cargo build --locked --release)
		fi
	fi
	[ -x "$PROGRAM" ] || die "$PROGRAM is not there (cargo build --release)"
}

# ---------------------------------------------------------------- the demonstration

D='' MOUNTED=
clean_up() {
	local rc=$?
	trap - EXIT
	if [ -n "$MOUNTED" ]; then
		"$PROGRAM" umount "$D/merged" 2>/dev/null || fusermount3 -uz "$D/merged" 2>/dev/null || umount -l "$D/merged" 2>/dev/null || true
	fi
	if [ -n "$D" ]; then rm -rf --one-file-system "$D"; fi
	exit "$rc"
}

make_layers() {
	D=$(mktemp -d "${TMPDIR:-/var/tmp}/unionmount-demo.XXXXXX")
	mkdir "$D"/{base,update,upper,work,merged}
	mkdir "$D"/{base,update}/etc "$D"/base/cache
	echo 'colour = green' >"$D/base/etc/app.conf"
	echo 'a very long manual' >"$D/base/manual.txt"
	echo 'old and useless' >"$D/base/obsolete.txt"
	echo 'kept by nobody' >"$D/base/cache/one"
	echo 'version 2' >"$D/update/etc/release"
	# In the update layer the obsolete file was deleted: image layers say so
	# with a file of this name.
	: >"$D/update/.wh.obsolete.txt"
}

mount_it() {
	printf '%s$ unionmount mount --lower update --lower base --upper upper --work work merged%s\n' "$dim" "$plain"
	MOUNTED=1
	(cd "$D" && "$PROGRAM" mount --lower update --lower base --upper upper --work work merged)
}

demonstrate() {
	heading "Two layers, made for this demonstration in $D"
	note "base is the older one, update the newer; both will only ever be read." \
		".wh.obsolete.txt is a whiteout: it hides that name in the layers below."
	show 'find base update -type f'

	heading "Mount them, with an empty directory on top that takes the changes"
	mount_it
	show 'findmnt -n -o FSTYPE,SOURCE --mountpoint merged'

	heading "The merged view: one tree, obsolete.txt is gone"
	show 'find merged -type f'
	show 'cat merged/etc/app.conf merged/etc/release'

	heading "Change a file of the base layer: it is copied up first"
	show 'echo "colour = blue" >> merged/etc/app.conf'
	show 'cat merged/etc/app.conf'

	heading "Delete a file and a directory of the base layer, make the directory anew"
	show 'rm merged/manual.txt'
	show 'rm -r merged/cache && mkdir merged/cache && echo fresh > merged/cache/two'
	show 'find merged -type f'

	heading "What landed in the upper directory"
	note "The changed copy, a whiteout for what was deleted, and the remade directory" \
		"marked as opaque, so that the old one does not show through."
	show 'find upper -mindepth 1 | sort'

	heading "The layers are what they were"
	show 'cat base/etc/app.conf base/manual.txt base/cache/one'

	heading "Unmount; the next mount of the same directories shows the same tree"
	printf '%s$ unionmount umount merged%s\n' "$dim" "$plain"
	"$PROGRAM" umount "$D/merged"
	MOUNTED=
	mount_it
	show 'find merged -type f'
	"$PROGRAM" umount "$D/merged"
	MOUNTED=

	heading "Done; $D is removed"
	note "Try: $PROGRAM mount --help"
}

NO_BUILD=
INSIDE=
while [ $# -gt 0 ]; do
	case $1 in
	--no-build) NO_BUILD=1 ;;
	# Called by this script itself, in a user namespace of its own.
	--inside) INSIDE=1 ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$SELF"; exit 0 ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done

if [ -z "$INSIDE" ]; then prepare; else PROGRAM=$UNIONMOUNT_BIN; fi
trap clean_up EXIT
trap 'exit 130' INT TERM

make_layers
if [ "$(id -u)" != 0 ]; then
	if problem=$(cd "$D" && "$PROGRAM" mount --lower update --lower base --upper upper --work work merged 2>&1); then
		"$PROGRAM" umount "$D/merged"
		heading "You are $(id -un): unionmount mounts through fusermount3"
	else
		heading "You are $(id -un), and fusermount3 may not mount here"
		note "($problem)" "So what follows runs as root of a user namespace, where no helper is needed:" \
			"unshare --user --map-root-user --mount"
		rm -rf "$D"
		D=
		UNIONMOUNT_BIN=$PROGRAM exec unshare --user --map-root-user --mount -- bash "$SELF" --inside
	fi
fi
demonstrate
