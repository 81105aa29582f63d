#!/usr/bin/env bash
# One group of rows on one system, for scripts/bench.sh, which sets the
# environment and the disk: the tree to work on is mounted, measured, unmounted.
#
#   scripts/bench-rows.sh GROUP SYSTEM
#
# It runs in a mount namespace of its own; with --rootless in a user namespace
# of an ordinary user. Lines of ROW, SYSTEM and seconds go to $RESULTS.
set -euo pipefail
exec </dev/null

group=$1 system=$2
die() { echo "bench: $*" >&2; exit 1; }
join() { local IFS=:; echo "$*"; }
layers_of() { find "$LAYERS" -maxdepth 1 -name "$1[0-9]*" -printf '%f\n' | sort -V; }

MOUNTED='' DAEMON=''
unmount() {
	local i
	if [ -z "$MOUNTED" ]; then return 0; fi
	for ((i = 0; i < 50; i++)); do
		if umount "$MOUNTED" 2>/dev/null; then break; fi
		sleep 0.1
	done
	if mountpoint -q "$MOUNTED"; then umount -l "$MOUNTED" || true; fi
	MOUNTED=''
	# A daemon that is still leaving would take its time from the next row.
	for ((i = 0; i < 100; i++)); do
		if [ -z "$DAEMON" ] || ! kill -0 "$DAEMON" 2>/dev/null; then return 0; fi
		sleep 0.05
	done
	echo "bench: $system does not end" >&2
	kill -9 "$DAEMON" || true
}
trap unmount EXIT

# stack_options STACK: the lower directories of a stack, and a fresh upper.
stack_options() {
	local lower
	case $1 in
	tree) mapfile -t lower < <(layers_of t) ;;
	deep) mapfile -t lower < <(layers_of d) ;;
	*) lower=("$1" d1) ;;
	esac
	mkdir "$DISK/upper" "$DISK/work"
	OPTIONS=lowerdir=$(join "${lower[@]}"),upperdir=$DISK/upper,workdir=$DISK/work
	case $system in
	overlay) if [ -n "$ROOTLESS" ]; then OPTIONS+=,userxattr; fi ;;
	unionmount-before) ;;
	unionmount-passthrough) OPTIONS+=,io=passthrough ;;
	unionmount-*) OPTIONS+=,transport=${system#unionmount-} ;;
	esac
}

# mount_command: what mounts $OPTIONS.
mount_command() {
	if [ "$system" = overlay ]; then
		COMMAND=(mount -t overlay overlay -o "$OPTIONS" "$DISK/m")
	else
		COMMAND=(timeout 30 "$BIN/$system" -o "$OPTIONS" "$DISK/m")
	fi
}

is_mounted() {
	MOUNTED=$M
	mountpoint -q "$M" || die "$system reported success, but nothing is mounted"
	# The program was copied: no other daemon has such a command line.
	DAEMON=$(pgrep -f "^$BIN/$system .*$DISK/m" | head -n 1 || true)
}

# mount_stack STACK [OPTIONS]: a fresh upper over the layers of STACK; the tree to work in is $M
# afterwards. `native` gets the merged tree itself; groups that change it make a copy of what they
# change.
mount_stack() {
	if [ "$system" = native ]; then
		M=$NATIVE/$1
		return 0
	fi
	M=$DISK/m
	mkdir "$M"
	stack_options "$1"
	if [ -n "${2:-}" ]; then
		# fuse-overlayfs never syncs, and knows no such option.
		case $2:$system in volatile:fuse-overlayfs*) ;; *) OPTIONS+=,$2 ;; esac
	fi
	mount_command
	"${COMMAND[@]}" >/dev/null 2>"$DISK/mount.err" || die "$system does not mount: $(cat "$DISK/mount.err")"
	is_mounted
}

# A place to make new entries in.
scratch() {
	if [ "$system" = native ]; then M=$DISK; else mount_stack tree; fi
	M=$M/scratch
	mkdir "$M"
}

# on_native DIR: on `native`, a copy of a directory of layers to change.
on_native() {
	if [ "$system" = native ]; then
		cp -a "$NATIVE/$1" "$DISK/copy"
		M=$DISK/copy
	else
		M=$M/${1#*/}
	fi
}

# Caches are dropped outside: an ordinary user cannot.
cold() {
	echo cold >"$ASK"
	read -r <"$ANSWER"
}

wanted() { grep -q "^$1	" <<<"$ROWS"; }
# t ROW WORKLOAD ARGS..: one figure. A row that was not asked for still runs, since later rows of its
# group may need what it makes, but is not kept.
t() {
	local row=$1 seconds
	shift
	# What was written before would be written back during the row.
	sync
	if ! seconds=$(timeout 600 "$W" "$@" 2>"$DISK/row.err"); then
		echo "bench: $row on $system failed: $(tail -n 3 "$DISK/row.err")" >&2
		return 0
	fi
	if wanted "$row"; then printf '%s\t%s\t%s\n' "$row" "$system" "$seconds" >>"$RESULTS"; fi
}

resident() { awk '/^VmRSS/ {print $2 * 1024}' "/proc/$DAEMON/status"; }
g_find() {
	local entries before
	mount_stack tree
	cold
	if [ -n "$DAEMON" ]; then before=$(resident); fi
	t find-fresh time find "$M"
	t find-again time find "$M"
	# A system that shows less has less to do.
	entries=$(find "$M" | wc -l)
	if [ ! -e "$RESULTS.entries" ]; then echo "$entries" >"$RESULTS.entries"; fi
	[ "$entries" = "$(cat "$RESULTS.entries")" ] || die "$system shows $entries entries, others $(cat "$RESULTS.entries")"
	if [ -n "$DAEMON" ]; then
		printf '%s\t%s\n' "$system" "$((($(resident) - before) / entries))" >>"$RESULTS.memory"
	fi
}
g_tar() {
	mount_stack tree
	cold
	t tar-fresh time tar -C "$M/small" -cf - .
	t tar-again time tar -C "$M/small" -cf - .
	t grep-warm time grep -r -l -e f00d "$M/small"
}
g_cached() {
	mount_stack tree
	t open-close open-close "$M/one/cached" "$OPENS"
	t open-read-close open-read-close "$M/one/cached" "$OPENS"
	t readdir readdir "$M/one" "$LISTS"
	t stat stat "$M/one/cached" "$STATS"
}
g_untar() {
	scratch
	t untar time tar -C "$M" -xf "$UNTAR"
	t rm-untarred time rm -rf "$M"
}
g_rm() {
	mount_stack tree
	on_native tree/small
	t rm-lower time rm -rf "$M"
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
copy_up() {
	if [ "$system" = native ]; then return 0; fi
	mount_stack work "${3:-}"
	case $2 in
	chmod) t "$1" time chmod -R go-rwx "$M/copyup" ;;
	append) t "$1" append "$M/copyup" ;;
	esac
}
g_chmod() { copy_up chmod-lower chmod; }
g_append() { copy_up append-lower append; }
g_chmod_volatile() { copy_up chmod-volatile chmod volatile; }
g_append_volatile() { copy_up append-volatile append volatile; }
g_git() {
	mount_stack work
	on_native work/git
	local git=(git -C "$M" -c user.name=bench -c user.email=bench@localhost -c gc.auto=0
		-c maintenance.auto=false -c safe.directory='*' -c init.defaultBranch=main)
	"${git[@]}" init -q
	t git-add time "${git[@]}" add -A
	t git-commit time "${git[@]}" commit -q -m all
	rm -rf "$M"/dir*
	t git-reset time "${git[@]}" reset -q --hard
}
g_read() {
	mount_stack data
	cold
	t read-seq seqread "$M/read"
	t read-again seqread "$M/read"
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
	mount_stack data
	t first-write firstwrite "$M/big"
}
g_deep() {
	if [ "$system" = native ]; then
		M=$NATIVE/deep
		cold
	else
		M=$DISK/m
		mkdir "$M"
		stack_options deep
		mount_command
		cold
		# shellcheck disable=SC2016 # expanded in there
		t mount-64 time sh -c '"$@" >/dev/null && ls "$0" >/dev/null' "$M" "${COMMAND[@]}"
		is_mounted
	fi
	t find-64 time find "$M"
	t missing-64 missing "$M" "$MISSING"
	t gcc-64 time gcc -fsyntax-only -I "$M" "$M/all.c"
}
g_c() {
	mount_stack work
	on_native work/c
	t compile-c time make -s -j2 -C "$M"
}
g_rust() {
	mount_stack work
	on_native work/rust
	export HOME=$M CARGO_HOME=$M/.cargo
	t compile-rust time cargo build -q --offline --manifest-path "$M/Cargo.toml"
}
g_sqlite() {
	mount_stack work
	on_native work/sqlite
	t sqlite time sqlite3 "$M/db" ".read $LAYERS/work/sql"
}
g_npm() {
	mount_stack work
	on_native work/npm
	export HOME=$M
	t npm-install time npm ci --silent --offline --no-audit --no-fund --ignore-scripts --cache "$NPM_CACHE" --prefix "$M"
}
g_apt() {
	mount_stack debian
	on_native debian/root
	mount -t proc proc "$M/proc"
	mount -t devtmpfs dev "$M/dev" 2>/dev/null || mount --rbind /dev "$M/dev"
	# shellcheck disable=SC2086 # several packages
	t apt-install time env DEBIAN_FRONTEND=noninteractive chroot "$M" \
		apt-get -q -o DPkg::Options::=--force-unsafe-io install -y --no-install-recommends --no-download $PACKAGES
	umount -l "$M/dev" "$M/proc"
}

# What one request costs. `miss`: names of which each is looked up once. `getattr`: with timeout=0 the
# kernel caches no attributes.
crossings() {
	local request=$1 path=$2 clients cost
	for clients in 1 2 4 8; do
		if cost=$(timeout 600 "$W" crossing "$request" "$path" "$((CROSS / clients))" "$clients" "$DAEMON" 2>"$DISK/row.err"); then
			echo "$request $clients $system $cost" >>"$RESULTS.costs"
		else
			echo "bench: $request on $system failed: $(tail -n 3 "$DISK/row.err")" >&2
		fi
	done
}
g_miss() {
	case $system in unionmount*) ;; *) return 0 ;; esac
	mount_stack tree
	crossings miss "$M"
}
g_getattr() {
	case $system in unionmount*) ;; *) return 0 ;; esac
	mount_stack tree timeout=0
	crossings getattr "$M/one/cached"
}

# Layer names are short: all 64 must fit in the 4 KiB that mount(2) takes.
cd "$LAYERS"
"g_$group"
