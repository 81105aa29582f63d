#!/usr/bin/env bash
# A newcomer's first hour, on a machine that has nothing but Debian and Rust: a fresh clone of this repository in a bare Debian
# root (debootstrap, variant minbase), then the two commands of the README: scripts/demo.sh, and scripts/check.sh.
#
#   scripts/clean-root.sh [--quick] [--commit COMMIT] [--cache DIR]
#
# --quick     of the tests only some that run many programs (a quarter of the time; the whole takes some 25 minutes)
# --commit    what is cloned (default HEAD); what is not committed is not tried
# --cache DIR where the bare root is kept for the next time (default target/clean-root)
#
# Needs root, debootstrap and the network. Rust is this machine's own, lent to the root read-only; crates that it has
# downloaded already are lent as well. All of it is in namespaces of its own: no mount and no process stays behind.
# Exit status: 0 passed, 1 failed.
set -euo pipefail

SELF=$(readlink -f "$0")
REPO=$(dirname "$(dirname "$SELF")")
# shellcheck source=scripts/debian.sh
. "$REPO/scripts/debian.sh"

die() { echo "clean-root: $*" >&2; exit 1; }
say() { printf '\n== clean-root, %d s: %s\n' "$SECONDS" "$*"; }

QUICK='' COMMIT=HEAD CACHE=$REPO/target/clean-root
while [ $# -gt 0 ]; do
	case $1 in
	--quick) QUICK=1 ;;
	--commit) COMMIT=${2:?}; shift ;;
	--cache) CACHE=${2:?}; shift ;;
	-h | --help) sed -n '2,/^set -/{/^set -/d; s/^# \{0,1\}//; p}' "$SELF"; exit 0 ;;
	*) echo "clean-root: unknown argument $1; see --help" >&2; exit 2 ;;
	esac
	shift
done
[ "$(id -u)" = 0 ] || die "needs root"
command -v debootstrap >/dev/null || die "debootstrap is missing (apt-get install debootstrap)"
RUST=$(rustc --print sysroot) || die "no rustc; install Rust with https://rustup.rs first"
COMMIT=$(git -C "$REPO" rev-parse --verify "$COMMIT^{commit}") || die "there is no commit $COMMIT"

mkdir -p "$CACHE"
CACHE=$(readlink -f "$CACHE")
ROOT=
clean_up() {
	local status=$?
	trap - EXIT
	if [ -n "$ROOT" ]; then
		# What a test that failed left immutable goes as well.
		chattr -R -i -a "$ROOT/var/tmp" "$ROOT/root/unionmount/target/tmp" 2>/dev/null || true
		rm -rf --one-file-system "$ROOT"
	fi
	exit "$status"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

if [ ! -e "$CACHE/bare.tar" ]; then
	find_mirror
	say "a bare root of $SUITE from $MIRROR"
	ROOT=$(mktemp -d "$CACHE/new.XXXXXX")
	make_debian_root "$ROOT" "$CACHE/debootstrap.log" || { tail -n 20 "$CACHE/debootstrap.log" >&2; die "debootstrap failed"; }
	tar -C "$ROOT" --numeric-owner -cf "$CACHE/bare.tar.new" .
	mv "$CACHE/bare.tar.new" "$CACHE/bare.tar"
	rm -rf --one-file-system "$ROOT"
fi
ROOT=$(mktemp -d "$CACHE/root.XXXXXX")
tar -C "$ROOT" --numeric-owner -xpf "$CACHE/bare.tar"
# The archive has the mode of a private directory for it, in which no ordinary user finds anything.
chmod 755 "$ROOT"
rm -f "$ROOT/etc/mtab"
say "a fresh clone of $COMMIT"
git clone -q --no-local --no-checkout "$REPO" "$ROOT/root/unionmount"
git -C "$ROOT/root/unionmount" checkout -q --detach "$COMMIT"
mkdir -p "$ROOT/opt/rust" "$ROOT/root/.cargo/registry"
# The way to the network, as make_debian_root has it for apt.
config=${CARGO_HOME:-$HOME/.cargo}/config.toml
if [ -e "$config" ]; then cp "$config" "$ROOT/root/.cargo/"; fi

# newcomer COMMAND..: runs it in the clone, on a machine of its own: a root that is really the root, since a chroot is refused
# user namespaces.
newcomer() {
	# shellcheck disable=SC2016 # expanded in there
	unshare --mount --propagation private --pid --fork --kill-child -- sh -euc '
		root=$1 rust=$2 registry=$3; shift 3
		mount --bind "$root" "$root"
		cd "$root"
		mount -t proc proc proc
		mount --rbind /sys sys
		mount --rbind /dev dev
		mount --bind -o ro "$rust" opt/rust
		if [ -d "$registry" ]; then mount --bind "$registry" root/.cargo/registry; fi
		mkdir -p .old
		pivot_root . .old
		umount -l .old
		rmdir .old
		cd /root/unionmount
		exec env -i HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			UNIONMOUNT_REQUIRE_FUSE=1 ${https_proxy:+https_proxy=$https_proxy} ${http_proxy:+http_proxy=$http_proxy} "$@"' \
		sh "$ROOT" "$RUST" "${CARGO_HOME:-$HOME/.cargo}/registry" "$@" </dev/null &
	# Waited for, not run in the foreground: so a signal is acted on at once.
	wait $!
}

say "scripts/demo.sh"
newcomer scripts/demo.sh >"$CACHE/demo.log" 2>&1 || { tail -n 40 "$CACHE/demo.log"; die "scripts/demo.sh failed"; }
tail -n 5 "$CACHE/demo.log"
arguments=()
if [ -n "$QUICK" ]; then
	for test in archive check cli filesystems identities posix power rootless; do arguments+=(--test "$test"); done
fi
say "scripts/check.sh ${arguments[*]}"
newcomer scripts/check.sh "${arguments[@]}" >"$CACHE/check.log" 2>&1 || { tail -n 60 "$CACHE/check.log"; die "scripts/check.sh failed"; }
grep -E '^test result|^== ' "$CACHE/check.log" | tail -n 40
say "a newcomer sees it work and the tests pass"
