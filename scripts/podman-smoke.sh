#!/usr/bin/env bash
# A whole container life with unionmount as the `mount_program` of podman and
# buildah: once as root, once rootless.
#
#   scripts/podman-smoke.sh [--mount-program PATH] [--only root|rootless] [--keep]
#
# --mount-program PATH   the binary to test; default $UNIONMOUNT_BIN, then
#                        target/release/unionmount. `kernel` uses no mount
#                        program at all but kernel overlayfs: a check of this
#                        script, since everything must pass there
# --only MODE            run only one of the two lives
# --keep                 leave the work directory behind for a look
#
# UNIONMOUNT_TEST_TRANSPORT=dev|uring|fuser names the transport to test.
#
# Needs root: it makes namespaces, and an ordinary user for the rootless life.
# Nothing of the machine's own podman is touched: stores, state, locks and
# configuration live in a temporary directory, and every process runs in a PID
# and mount namespace that ends with the script.
# The last line is `N passed, N failed`; the exit status is 1 if anything failed.
# shellcheck disable=SC2016 # the scripts in single quotes run in a container
set -euo pipefail

SELF=$(readlink -f "$0")
REPO=$(dirname "$(dirname "$SELF")")
SMOKE_USER=unionmount-smoke

die() { echo "podman-smoke: $*" >&2; exit 1; }

# --------------------------------------------------------------------------
# Part 1: the life itself. Runs inside the namespaces, as root or as the user;
# everything it needs comes in through the environment (see part 2).
# --------------------------------------------------------------------------

# One engine call may take this long. The slowest one takes about 3 s on two
# cores, so that only a hang reaches the limit.
STEP_TIMEOUT=${STEP_TIMEOUT:-60}

# shellcheck disable=SC2153 # MODE and STORE come from part 2
passed() { echo "ok    $MODE: $1"; echo ok >>"$RESULTS"; }
failed() {
	echo "FAIL  $MODE: $1"
	echo "FAIL $MODE: $1" >>"$RESULTS"
	if [ -s "${2:-/dev/null}" ]; then tail -n 25 "$2" | sed 's/^/      | /'; fi
}

# must NAME COMMAND..: a step that the later ones build on; its failure ends
# this life. The output stays in $OUT for checks.
must() {
	local name=$1 rc=0
	shift
	timeout -k 5 "$STEP_TIMEOUT" "$@" </dev/null >"$OUT" 2>"$ERR" || rc=$?
	if [ "$rc" = 0 ]; then
		passed "$name"
		return 0
	fi
	cat "$OUT" >>"$ERR"
	if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then name="$name (no answer within $STEP_TIMEOUT s)"; fi
	failed "$name (exit status $rc)" "$ERR"
	exit 1
}

# check NAME COMMAND..: a question whose answer no later step depends on.
check() {
	local name=$1
	shift
	if timeout -k 5 "$STEP_TIMEOUT" "$@" </dev/null >"$OUT" 2>"$ERR"; then
		passed "$name"
	else
		cat "$OUT" >>"$ERR"
		failed "$name" "$ERR"
	fi
}

# Daemons of the mount program: found by their executable. The program was
# copied to a path of this run, so that no other daemon can be meant.
daemons() {
	local p
	for p in /proc/[0-9]*; do
		if [ "$(readlink "$p/exe" 2>/dev/null)" = "$BIN" ]; then echo "${p#/proc/}"; fi
	done
}

# FUSE mounts of this life, wherever the engine keeps them: rootless podman
# holds them in a namespace of its own that only `podman unshare` enters.
# shellcheck disable=SC2153 # STORE comes from part 2
fuse_mounts() {
	if [ "$MODE" = rootless ]; then
		timeout -k 5 30 podman unshare cat /proc/self/mountinfo
	else
		cat /proc/self/mountinfo
	fi | grep -F "$STORE" | grep -E ' - fuse' || true
}

# gone COMMAND: waits until COMMAND prints nothing; what is left is printed.
gone() {
	local i left
	for ((i = 0; i < 50; i++)); do
		left=$("$1")
		if [ -z "$left" ]; then return 0; fi
		sleep 0.1
	done
	echo "$left"
	return 1
}

check_gone() {
	if gone "$2" >"$OUT" 2>&1; then passed "$1"; else failed "$1" "$OUT"; fi
}

# diff_is NAME LINE..: the listing in $OUT holds exactly these lines, in the
# engine's order. Left out is what podman itself makes in /etc (mount points
# for hosts, hostname and the like).
diff_is() {
	local name=$1
	shift
	printf '%s\n' "$@" | sort >"$W/want"
	grep -vE '^[AC] /etc(/|$)' "$OUT" | sort >"$W/have"
	if diff -u --label expected --label reported "$W/want" "$W/have" >"$ERR"; then
		passed "$name"
	else
		failed "$name" "$ERR"
	fi
}

# What holds in the image after the three-layer build, and in every container
# made from it. What became of the deleted and remade directory is a question
# of its own, asked three ways: a listing, a lookup of a name, a lookup below.
REMADE_IN_BUILD='
test "$(ls -A /d)" = new
test ! -e /d/old
test ! -e /d/sub
test ! -e /d/sub/deep
test "$(cat /d/new)" = second
'
STATE_AFTER_BUILD='
test ! -e /stray
test "$(ls -A /e)" = kept
test "$(cat /app/conf)" = v3
test "$(cat /app/lib/one)" = one
test ! -e /app/lib/two
'

# What the running container does to its files, one change per kind.
CHANGES='
echo appended >>/app/conf
echo fresh >/app/fresh
rm /app/lib/one
rm -r /tree/gone
mv /tree/dir /tree/moved
chmod 0700 /tree/mode
chmod 4755 /tree/suid
ln /tree/linked /tree/linked2
echo through-link >>/tree/linked2
ln -s fresh /app/link
mkdir /app/newdir
touch /app/newdir/empty
rm -r /d && mkdir /d && echo third >/d/third
'

# And what must hold afterwards: live, after a restart (which is a remount of
# the same upper), and in the committed image.
STATE_AFTER_CHANGES='
test "$(cat /app/conf)" = "v3
appended"
test "$(cat /app/fresh)" = fresh
test "$(cat /app/link)" = fresh
test ! -e /app/lib/one
test ! -e /tree/gone
test ! -e /tree/dir
test "$(cat /tree/moved/sub/f)" = deep
test "$(cat /tree/moved/g)" = g
test "$(stat -c %a /tree/mode)" = 700
test "$(stat -c %a /tree/suid)" = 4755
test "$(cat /tree/linked)" = "linked
through-link"
test "$(cat /tree/linked2)" = "linked
through-link"
test -f /app/newdir/empty
'
SAME_FILE='
test "$(stat -c %i /tree/linked)" = "$(stat -c %i /tree/linked2)"
test "$(stat -c %h /tree/linked)" = 2
'
REMADE_IN_CONTAINER='
test "$(ls -A /d)" = third
test ! -e /d/old
test ! -e /d/sub/deep
test ! -e /d/new
'

write_context() {
	mkdir -p "$W/base/root/bin" "$W/base/root/tmp" "$W/base/root/etc" "$W/layers/payload/lib"
	cp /bin/busybox "$W/base/root/bin/busybox"
	# Symlinks for every applet: made here, not by a RUN, since a shell is
	# needed for the first RUN.
	for applet in $(/bin/busybox --list); do
		if [ "$applet" != busybox ]; then ln -s busybox "$W/base/root/bin/$applet"; fi
	done
	echo 'root:x:0:0:root:/:/bin/sh' >"$W/base/root/etc/passwd"
	chmod 1777 "$W/base/root/tmp"
	cat >"$W/base/Containerfile" <<-'END'
		FROM scratch
		COPY root /
	END

	echo v1 >"$W/layers/payload/conf"
	echo one >"$W/layers/payload/lib/one"
	echo two >"$W/layers/payload/lib/two"
	# The directory /d gets content in one layer, is deleted and made again in
	# a later one, while its parent holds another whiteout (/e/old) in between;
	# `ls -R /` lists the parents first. That is the order in which peers bring
	# the old files back.
	cat >"$W/layers/Containerfile" <<-'END'
		FROM localhost/smoke-base
		COPY payload /app
		RUN mkdir -p /d/sub /e && echo first >/d/old && echo deep >/d/sub/deep && echo x >/e/old && echo y >/e/kept && echo z >/stray && echo v2 >/app/conf && mkdir -p /tree/gone/a /tree/dir/sub && echo deep >/tree/dir/sub/f && echo g >/tree/dir/g && echo linked >/tree/linked && echo m >/tree/mode && echo s >/tree/suid
		RUN ls -R /d /e /app >/dev/null && rm /stray /e/old /app/lib/two && echo v3 >/app/conf
		RUN ls -A / >/dev/null && rm -r /d && mkdir /d && echo second >/d/new
		RUN ls -A /d >/seen-at-build && ( cat /d/old /d/sub/deep 2>/dev/null >>/seen-at-build || true )
	END
}

life() {
	local img=localhost/smoke-app
	# Runs a script where the mounts of the engine can be seen.
	local in_mounts=(sh -euxc)
	if [ "$MODE" = rootless ]; then in_mounts=(podman unshare sh -euxc); fi

	must "version" podman --version
	write_context
	must "image from scratch" podman build --pull=never -t localhost/smoke-base "$W/base"
	must "run the base image" podman run --rm localhost/smoke-base busybox test -x /bin/ls
	must "layered build" podman build --pull=never --layers --no-cache -t $img "$W/layers"

	# --- the built image -------------------------------------------------
	must "read what the build saw" podman run --rm $img cat /seen-at-build
	if [ "$(cat "$OUT")" = new ]; then
		passed "rm -r /d && mkdir /d: nothing old during the build"
	else
		failed "rm -r /d && mkdir /d: nothing old during the build" "$OUT"
	fi
	check "rm -r /d && mkdir /d: nothing old in a new container" \
		podman run --rm $img sh -euxc "$REMADE_IN_BUILD"
	check "the built image: content" podman run --rm $img sh -euxc "$STATE_AFTER_BUILD"
	must "exit status comes through" sh -c 'podman run --rm '$img' sh -c "exit 7"; test $? = 7'

	# --- a container that lives, changes, restarts -----------------------
	must "run in the background" podman run -d --name life $img sleep 1000
	if [ ! -e "$BIN" ]; then
		passed "kernel overlayfs serves the container"
	elif [ -n "$(daemons)" ] && [ -n "$(fuse_mounts)" ]; then
		passed "the mount program serves the container"
	else
		failed "the mount program serves the container"
		exit 1
	fi
	must "change files" podman exec life sh -euxc "$CHANGES"
	check "changes are seen at once" podman exec life sh -euxc "$STATE_AFTER_CHANGES"
	# Rootless kernel overlayfs numbers the two names differently.
	if [ -e "$BIN" ]; then check "a hard link is the same file" podman exec life sh -euxc "$SAME_FILE"; fi
	check "rm -r /d && mkdir /d: nothing old at once" podman exec life sh -euxc "$REMADE_IN_CONTAINER"

	# A rename of a directory is a deletion and an addition with its content.
	local want=(
		"C /app" "C /app/conf" "A /app/fresh" "A /app/link" "A /app/newdir" "A /app/newdir/empty"
		"C /app/lib" "D /app/lib/one"
		"C /tree" "D /tree/gone" "D /tree/dir" "A /tree/moved" "A /tree/moved/g" "A /tree/moved/sub" "A /tree/moved/sub/f"
		"C /tree/mode" "C /tree/suid" "C /tree/linked" "A /tree/linked2"
		"A /d/third")
	# On kernel overlayfs the engine reads the upper instead of comparing
	# mounts, and takes a remade directory for a deleted one.
	if [ -e "$BIN" ]; then want+=("C /d" "D /d/new"); else want+=("D /d"); fi
	must "diff of the running container" podman diff life
	diff_is "diff of the running container lists A, C, D" "${want[@]}"

	must "stop" podman stop -t 1 life
	must "diff of the stopped container" podman diff life
	diff_is "diff of the stopped container lists the same" "${want[@]}"
	check_gone "stop ends the daemon" daemons

	must "start again" podman start life
	check "changes are there after the restart" podman exec life sh -euxc "$STATE_AFTER_CHANGES"
	check "a hard link is the same file after the restart" podman exec life sh -euxc "$SAME_FILE"
	check "rm -r /d && mkdir /d: nothing old after the restart" podman exec life sh -euxc "$REMADE_IN_CONTAINER"
	must "copy a file out of the running container" podman cp life:/app/conf "$W/conf.out"
	check "the copied file is right" grep -qx appended "$W/conf.out"

	# --- commit: of the running container, then of the stopped one --------
	must "commit the running container" podman commit -q --pause=false life localhost/smoke-live
	check "image committed while running: content" podman run --rm localhost/smoke-live sh -euxc "$STATE_AFTER_CHANGES"
	must "stop again" podman stop -t 1 life
	must "commit the stopped container" podman commit -q life localhost/smoke-done
	check "committed image: content" podman run --rm localhost/smoke-done sh -euxc "$STATE_AFTER_CHANGES"
	check "rm -r /d && mkdir /d: nothing old in the committed image" podman run --rm localhost/smoke-done sh -euxc "$REMADE_IN_CONTAINER"
	must "export" podman export -o "$W/export.tar" life
	check "export holds no whiteout and no old file" sh -c '
		tar tf "$1" >"$1.list"
		grep -qx d/third "$1.list"
		! grep -E "(^|/)\.wh\.|^d/old$|^d/sub|^tree/dir/|^app/lib/one$" "$1.list"' x "$W/export.tar"

	# --- the image as a mount --------------------------------------------
	check "image mount: content" "${in_mounts[@]}" '
		m=$(podman image mount localhost/smoke-done)
		test "$(ls -A "$m/d")" = third
		test "$(cat "$m/tree/moved/sub/f")" = deep
		test "$(stat -c %a "$m/tree/suid")" = 4755
		test ! -e "$m/tree/gone"
		find "$m" -name ".wh.*" | { ! grep . ; }
		! touch "$m/readonly" 2>/dev/null
		podman image unmount localhost/smoke-done'
	# A build on top of a committed image, with the delete-and-remake again.
	printf 'FROM localhost/smoke-done\nRUN rm -r /d /tree && mkdir -p /d /tree/dir && ls -A /d /tree/dir\n' >"$W/layers/Containerfile.again"
	must "build on the committed image" podman build --pull=never --layers --no-cache -t localhost/smoke-again -f "$W/layers/Containerfile.again" "$W/layers"
	check "nothing old in it" podman run --rm localhost/smoke-again sh -euxc \
		'test -z "$(ls -A /d)"; test "$(ls -A /tree)" = dir; test -z "$(ls -A /tree/dir)"; test ! -e /tree/moved/g; test ! -e /d/third'

	# --- buildah -----------------------------------------------------------
	must "buildah from" buildah from --pull-never --name bah $img
	must "buildah run" buildah run bah -- sh -euc 'echo b >/app/bah; rm /app/lib/one; rm -r /e && mkdir /e; chmod 2755 /tree/mode; mv /tree/dir /tree/bah'
	must "buildah copy" buildah copy bah "$W/conf.out" /app/copied
	must "buildah commit" buildah commit -q bah localhost/smoke-bah
	check "buildah mount: content" "${in_mounts[@]}" '
		m=$(buildah mount bah)
		test "$(cat "$m/app/bah")" = b
		test -z "$(ls -A "$m/e")"
		test "$(cat "$m/tree/bah/g")" = g
		buildah umount bah'
	must "buildah rm" buildah rm bah
	check "image made by buildah: content" podman run --rm localhost/smoke-bah sh -euxc '
		test "$(cat /app/bah)" = b
		test -f /app/copied
		test ! -e /app/lib/one
		test -z "$(ls -A /e)"
		test ! -e /e/kept
		test ! -e /tree/dir
		test "$(cat /tree/bah/sub/f)" = deep
		test "$(stat -c %a /tree/mode)" = 2755'

	# --- a container with ids of its own -----------------------------------
	# The engine works in its tree as root of the machine, who has no id there
	# (a rootless engine's containers live in its own user namespace anyway).
	if [ "$MODE" = root ]; then
		local mapped=(--uidmap 0:100000:65536 --gidmap 0:200000:65536)
		must "run with mapped ids" podman run -d --name mapped "${mapped[@]}" $img sleep 1000
		must "copy a file into it" podman cp "$W/conf.out" mapped:/app/in
		must "copy a directory into it" podman cp "$W/layers/payload" mapped:/payload
		check "with mapped ids: everything is its root's" podman exec mapped sh -euxc '
			echo mine >/app/mine
			test -L /etc/mtab
			for f in /app/conf /app/mine /app/in /payload/lib/one /etc/mtab; do test "$(stat -c %u:%g $f)" = 0:0; done
			chown 5:6 /app/in
			rm -r /d && mkdir /d && test -z "$(ls -A /d)"'
		must "stop with mapped ids" podman stop -t 1 mapped
		must "start with mapped ids" podman start mapped
		check "with mapped ids: owners after the restart" podman exec mapped sh -euxc '
			test "$(stat -c %u:%g /app/in)" = 5:6
			test "$(stat -c %u:%g /app/mine)" = 0:0'
		must "rm with mapped ids" podman rm -f -t 1 mapped
		# (Programs cannot write there in podman 4.3, on kernel overlayfs either.)
		printf 'FROM %s\nCOPY payload /copied\n' $img >"$W/layers/Containerfile.mapped"
		must "build with mapped ids" podman build --pull=never --no-cache \
			--userns-uid-map 0:100000:65536 --userns-gid-map 0:200000:65536 -t localhost/smoke-built -f "$W/layers/Containerfile.mapped" "$W/layers"
		check "image built with mapped ids: content" podman run --rm localhost/smoke-built test -f /copied/lib/one
	fi

	# --- several at once ---------------------------------------------------
	local i pids=() bad=0
	for i in 1 2 3 4; do
		timeout -k 5 "$STEP_TIMEOUT" podman run --rm --name "par$i" $img sh -euc \
			'for i in $(seq 50); do echo $i >/app/f$i; done; rm -r /app; mkdir /app; test -z "$(ls -A /app)"' \
			</dev/null >"$W/par$i" 2>&1 &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || bad=1; done
	if [ $bad = 0 ]; then passed "four containers at once"; else
		cat "$W"/par? >"$OUT"
		failed "four containers at once" "$OUT"
	fi

	# --- the end -----------------------------------------------------------
	must "rm" podman rm -f -t 1 life
	must "rmi" podman rmi -af
	must "nothing is listed any more" sh -c 'test -z "$(podman ps -aq)" && test -z "$(podman images -aq)"'
	check_gone "no mount is left" fuse_mounts
	check_gone "no daemon is left" daemons
}

# Ends what a failed life may have left. Children in our PID namespace die with
# it anyway; the engines still get the chance to unmount in their own way.
end_life() {
	local rc=$? p
	trap - EXIT
	for p in $(jobs -p); do kill "$p" 2>/dev/null || true; done
	timeout -k 2 20 podman rm -af -t 0 </dev/null >/dev/null 2>&1 || true
	timeout -k 2 20 podman image unmount -a </dev/null >/dev/null 2>&1 || true
	if [ "$MODE" = rootless ]; then
		# Ends the pause process that keeps podman's namespace alive.
		timeout -k 2 20 podman system migrate </dev/null >/dev/null 2>&1 || true
	fi
	for p in $(daemons); do kill "$p" 2>/dev/null || true; done
	exit "$rc"
}

if [ "${1:-}" = --inside ]; then
	OUT=$W/out ERR=$W/err
	trap end_life EXIT
	trap 'exit 1' INT TERM
	cd "$W"
	life
	exit 0
fi

# --------------------------------------------------------------------------
# Part 2: makes the ground for a life and calls part 1 in it.
# --------------------------------------------------------------------------

MOUNT_PROGRAM=${UNIONMOUNT_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount}
MODES=(root rootless)
KEEP=
while [ $# -gt 0 ]; do
	case $1 in
	--mount-program) MOUNT_PROGRAM=${2:?--mount-program needs a path}; shift ;;
	--mount-program=*) MOUNT_PROGRAM=${1#*=} ;;
	--only)
		MODES=("${2:?--only needs root or rootless}")
		case $2 in root | rootless) ;; *) die "--only takes root or rootless, not '$2'" ;; esac
		shift ;;
	--keep) KEEP=1 ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$SELF"; exit 0 ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done

[ "$(id -u)" = 0 ] || die "needs root (it makes namespaces and an ordinary user)"
[ "$MOUNT_PROGRAM" = kernel ] || [ -x "$MOUNT_PROGRAM" ] || die "no such program: $MOUNT_PROGRAM (cargo build --release, or --mount-program PATH)"
[ -c /dev/fuse ] || die "/dev/fuse is missing (modprobe fuse)"
[ -x /bin/busybox ] || die "/bin/busybox is missing (apt-get install busybox-static)"
for tool in podman buildah crun unshare runuser useradd newuidmap fusermount3; do
	command -v $tool >/dev/null || die "$tool is missing (apt-get install podman buildah crun uidmap fuse3 busybox-static)"
done
file_is_static() { ! grep -q ld-linux <(head -c 4096 /bin/busybox | strings 2>/dev/null || head -c 4096 /bin/busybox); }
file_is_static || die "/bin/busybox is dynamically linked; a FROM scratch image needs busybox-static"

# One run at a time: the rootless life has one user.
exec 9>/run/lock/unionmount-podman-smoke.lock
flock -w 300 9 || die "another run holds /run/lock/unionmount-podman-smoke.lock"

# Short, since conmon's sockets live below it (108 bytes at most); on a real
# disk, since layers on tmpfs hide half of what can go wrong.
TMP=$(mktemp -d /var/tmp/umsmoke.XXXXXX)
chmod 755 "$TMP"
RESULTS=$TMP/results
: >"$RESULTS"
chmod 666 "$RESULTS"
MADE_USER=

CHILD=
finish() {
	local rc=$? ok bad
	trap - EXIT
	# The namespaces end with their first process, which ends with $CHILD
	# (--kill-child), and so does everything the engines left in them.
	if [ -n "$CHILD" ] && kill -0 "$CHILD" 2>/dev/null; then kill "$CHILD" 2>/dev/null || true; wait "$CHILD" 2>/dev/null || true; fi
	if [ -n "$MADE_USER" ]; then userdel "$SMOKE_USER" 2>/dev/null || echo "podman-smoke: could not remove the user $SMOKE_USER" >&2; fi
	ok=$(grep -cx ok "$RESULTS" || true)
	bad=$(grep -c '^FAIL' "$RESULTS" || true)
	if [ "$bad" != 0 ]; then
		echo
		grep '^FAIL' "$RESULTS" | sed 's/^FAIL/failed:/'
		rc=1
	elif [ "$rc" != 0 ]; then
		echo "podman-smoke: ended early (status $rc)"
		bad=1
	fi
	if [ -n "$KEEP" ]; then echo "kept: $TMP"; else rm -rf --one-file-system "$TMP" || true; fi
	echo "$ok passed, $bad failed"
	exit "$rc"
}
trap finish EXIT
trap 'exit 1' INT TERM

# A copy under a path of this run: the user can reach it wherever the build
# tree is, and a daemon can be told from all others by its executable.
mkdir "$TMP/bin"
if [ "$MOUNT_PROGRAM" != kernel ]; then
	cp "$MOUNT_PROGRAM" "$TMP/bin/unionmount"
	chmod 755 "$TMP/bin/unionmount"
fi

# $1 = directory of the life, $2 = store, $3 = run directory
write_config() {
	# No rlimit may be raised without CAP_SYS_RESOURCE, no cgroup can be
	# counted on, and no network is needed.
	cat >"$1/containers.conf" <<-END
		[containers]
		default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
		netns = "none"
		cgroupns = "host"
		cgroups = "disabled"
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		lock_type = "file"
		runtime = "crun"
		tmp_dir = "$3/libpod"
		static_dir = "$2/libpod"
		volume_path = "$2/volumes"
	END
	cat >"$1/storage.conf" <<-END
		[storage]
		driver = "overlay"
		graphroot = "$2"
		runroot = "$3/storage"
		rootless_storage_path = "$2"
	END
	if [ "$MOUNT_PROGRAM" != kernel ]; then
		# podman 4.3 maps the ids of a container twice where it believes that
		# idmapped mounts may be layers: once by them, once by the mount program.
		mkdir -p "$3/storage/overlay"
		touch "$3/storage/overlay/idmapped-lower-dir-false"
		printf '[storage.options.overlay]\nmount_program = "%s"\n' "$TMP/bin/unionmount" >>"$1/storage.conf"
		if [ -n "${UNIONMOUNT_TEST_TRANSPORT:-}" ]; then
			printf 'mountopt = "transport=%s"\n' "$UNIONMOUNT_TEST_TRANSPORT" >>"$1/storage.conf"
		fi
	fi
}

# Runs the life in namespaces of its own: mounts do not reach the machine, and
# no process outlives it. crun refuses the hybrid cgroup layout, so that its
# v2 part is taken away in there.
enter() {
	unshare --mount --propagation private --pid --fork --kill-child --mount-proc -- bash -c '
		if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
		mount --make-rshared /
		# A bash that is not replaced stays process 1 and reaps orphans.
		"$@"; exit $?' x "$@" &
	CHILD=$!
	wait "$CHILD" || true
	CHILD=
}

for mode in "${MODES[@]}"; do
	dir=$TMP/$mode
	mkdir "$dir" "$dir/work" "$dir/run" "$dir/home"
	chmod 700 "$dir/run"
	vars=(PATH="$PATH" LANG=C.UTF-8 MODE="$mode" BIN="$TMP/bin/unionmount" W="$dir/work" RESULTS="$RESULTS"
		BUILDAH_ISOLATION=chroot CONTAINERS_CONF="$dir/containers.conf" CONTAINERS_STORAGE_CONF="$dir/storage.conf"
		HOME="$dir/home" TMPDIR="$dir/work" STEP_TIMEOUT="$STEP_TIMEOUT")
	before=$(wc -l <"$RESULTS")
	if [ "$mode" = root ]; then
		write_config "$dir" "$dir/store" "$dir/run"
		enter env -i "${vars[@]}" STORE="$dir/store" bash "$SELF" --inside
	else
		chmod a+rw /dev/fuse 2>/dev/null || true
		if ! id "$SMOKE_USER" >/dev/null 2>&1; then
			useradd --system --no-create-home --home-dir "$dir/home" --shell /bin/bash "$SMOKE_USER"
			MADE_USER=1
		fi
		# System users get no subordinate ids from useradd by themselves.
		if ! grep -q "^$SMOKE_USER:" /etc/subuid; then usermod --add-subuids 2000000000-2000065535 "$SMOKE_USER"; fi
		if ! grep -q "^$SMOKE_USER:" /etc/subgid; then usermod --add-subgids 2000000000-2000065535 "$SMOKE_USER"; fi
		# Rootless storage.conf is only honoured in part; its store is always
		# this one.
		store=$dir/home/.local/share/containers/storage
		mkdir -p "$store"
		write_config "$dir" "$store" "$dir/run"
		cp "$SELF" "$dir/smoke.sh"
		chown -R "$SMOKE_USER:" "$dir"
		enter runuser -u "$SMOKE_USER" -- env -i "${vars[@]}" STORE="$store" XDG_RUNTIME_DIR="$dir/run" \
			bash "$dir/smoke.sh" --inside
	fi
	if [ "$(wc -l <"$RESULTS")" = "$before" ]; then echo "FAIL $mode: did not start" | tee -a "$RESULTS"; fi
done
