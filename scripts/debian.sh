# shellcheck shell=bash
# For the other scripts, which source it: which Debian packages they need, and a Debian root to live in.

DEBIAN_SCRIPTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")

# packages_for PURPOSE..: the packages of scripts/packages.txt for these purposes.
packages_for() {
	local purpose
	for purpose; do awk -v purpose="$purpose" '$1 == purpose {print $2}' "$DEBIAN_SCRIPTS/packages.txt"; done
}

# missing_packages PURPOSE..: those of them that are not installed; where there is no dpkg, those of which a program is missing.
missing_packages() {
	local package programs program
	for package in $(packages_for "$@"); do
		if command -v dpkg-query >/dev/null; then
			if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then echo "$package"; fi
			continue
		fi
		read -ra programs < <(awk -v package="$package" '$2 == package {$1 = $2 = ""; print}' "$DEBIAN_SCRIPTS/packages.txt") || true
		for program in "${programs[@]}"; do
			if ! command -v "$program" >/dev/null; then
				echo "$package"
				break
			fi
		done
	done
}

# install_packages PURPOSE..: installs what is missing, as root on Debian; else says by which command, and fails. What apt
# prints goes to standard error.
install_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	if [ ${#missing[@]} = 0 ]; then return 0; fi
	if ! command -v apt-get >/dev/null; then
		echo "these are missing (under their names in Debian): ${missing[*]}; install them first" >&2
		return 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "packages are missing; install them with: sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
		return 1
	fi
	{
		# A source of others that does not answer is not ours to fail on; a missing package is, and fails the next line.
		if [ -z "${DEBIAN_UPDATED:-}" ]; then apt-get -q update || true; fi
		DEBIAN_UPDATED=1
		DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"
	} </dev/null >&2
}

# prepare_machine: what tests want of a machine that was not set up yet, as root: the FUSE device for all users, a mount
# table for fusermount3(1), and where connections can be aborted.
prepare_machine() {
	[ "$(id -u)" = 0 ] || return 0
	if [ ! -c /dev/fuse ]; then modprobe fuse 2>/dev/null || mknod /dev/fuse c 10 229 2>/dev/null || true; fi
	# Ordinary users mount, too. Where udev runs it has seen to that already.
	chmod 666 /dev/fuse 2>/dev/null || echo "the mode of /dev/fuse stays as it is" >&2
	if [ ! -e /etc/mtab ] && [ ! -L /etc/mtab ]; then ln -s /proc/self/mounts /etc/mtab || true; fi
	# Where systemd runs it is mounted already.
	if ! mountpoint -q /sys/fs/fuse/connections; then
		mount -t fusectl fusectl /sys/fs/fuse/connections || echo "no fusectl here" >&2
	fi
}

# find_mirror: sets SUITE and MIRROR to the machine's own Debian, unless they are set: apt knows it in whichever format and
# file it is written down.
find_mirror() {
	local id='' codename=''
	if [ -r /etc/os-release ]; then
		# shellcheck disable=SC1091
		id=$(. /etc/os-release && echo "${ID:-}")
		# shellcheck disable=SC1091
		codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	fi
	if [ "$id" = debian ] && [ -n "$codename" ] && [ -z "${SUITE:-}" ]; then
		SUITE=$codename
		if [ -z "${MIRROR:-}" ]; then
			# shellcheck disable=SC2016 # apt's own fields
			MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)' 2>/dev/null |
				awk -v suite="$SUITE" '$2 == suite && $3 == "main" && $4 == "Packages" && !found++ {print $1}')
		fi
		if [ -z "$MIRROR" ]; then
			# No lists downloaded yet: then apt does not say, but the files do.
			MIRROR=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
				grep -vE '^[[:space:]]*#' | grep -oE '(https?|file|copy)://[^] ]+' | grep -E '/debian/?$' | head -n 1 || true)
		fi
	fi
	SUITE=${SUITE:-bookworm}
	MIRROR=${MIRROR:-http://deb.debian.org/debian}
}

# make_debian_root DIR LOG: a bare Debian (debootstrap(8), variant minbase) that reaches the network as this machine does.
make_debian_root() {
	local root=$1 log=$2
	debootstrap --variant=minbase "$SUITE" "$root" "$MIRROR" >"$log" 2>&1 || return 1
	echo "deb $MIRROR $SUITE main" >"$root/etc/apt/sources.list"
	apt-config dump 2>/dev/null | grep -iE '^Acquire::(http|https)(::[^ ]*)?::Proxy ' >"$root/etc/apt/apt.conf.d/00proxy" || true
	if [ ! -s "$root/etc/apt/apt.conf.d/00proxy" ]; then rm "$root/etc/apt/apt.conf.d/00proxy"; fi
	cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
	# Translated descriptions are a third of what apt downloads.
	echo 'Acquire::Languages "none";' >"$root/etc/apt/apt.conf.d/00languages"
	rm -f "$root"/var/lib/apt/lists/*Translation* "$root"/var/cache/apt/*.bin
}
