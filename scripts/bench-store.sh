#!/usr/bin/env bash
# Speed and memory of the store beside umoci, podman and skopeo, in turn within
# one run. `scripts/bench.sh --store` calls it.
#
#   scripts/bench-store.sh [--rounds N] [--quick] [--dir DIR] [--only REGEX]
#
# --rounds N   how often each row is run by each program (default 3); the table
#              shows medians, in seconds
# --quick      about a tenth of the work: for trying the script, not for figures
# --dir DIR    work below DIR (default /var/tmp); must be a disk, not tmpfs
# --only REGEX only these rows: load, diff, create, memory
#
# $UNIONMOUNT_BIN is the unionmount to measure (default target/release/unionmount).
# Needs root. Programs that are not installed are left out.
set -euo pipefail

REPO=$(dirname "$(dirname "$(readlink -f "$0")")")
die() { echo "bench-store: $*" >&2; exit 1; }
ROUNDS=3 QUICK='' BASE=/var/tmp ONLY=.
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) ROUNDS=${2:?--rounds needs a number}; shift ;;
	--dir) BASE=${2:?--dir needs a directory}; shift ;;
	--only) ONLY=${2:?--only needs a regular expression}; shift ;;
	--quick) QUICK=1 ;;
	-h | --help) sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
	*) die "unknown argument '$1' (see --help)" ;;
	esac
	shift
done
[ "$(id -u)" = 0 ] || die "needs root"
BIN=${UNIONMOUNT_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/unionmount}
[ -x "$BIN" ] || die "no $BIN; build it with cargo build --release"
TOP=$(mktemp -d "$BASE/um-bench-store.XXXXXX")
if [ "$(findmnt -n -o FSTYPE -T "$TOP")" = tmpfs ]; then die "$BASE is a tmpfs; --dir DIR on a disk"; fi
cp "$BIN" "$TOP/unionmount"
UM="$TOP/unionmount"
finish() {
	local rc=$?
	trap - EXIT
	findmnt -rn -o TARGET | { grep "^$TOP/" || true; } | tac | while read -r at; do umount -l "$at" || true; done
	rm -rf --one-file-system "$TOP" || true
	exit "$rc"
}
trap finish EXIT
trap 'exit 130' INT TERM
have() { command -v "$1" >/dev/null; }
wanted() { grep -qE "$ONLY" <<<"$1"; }

if [ -n "$QUICK" ]; then LAYER_MIB=12 ENTRIES=10000 CHANGES=500; else LAYER_MIB=128 ENTRIES=100000 CHANGES=5000; fi

# An image as an OCI layout: LAYERS layers of MIB MiB (or ENTRIES small files).
make_image() { # DIR NAME LAYERS MIB ENTRIES
	python3 - "$@" <<'PY'
import gzip, hashlib, io, json, os, random, sys, tarfile
dir, name, layers, mib, entries = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
random.seed(7)
blobs = os.path.join(dir, 'blobs/sha256'); os.makedirs(blobs)
words = [bytes(random.choices(range(97, 123), k=random.randint(2, 9))) for _ in range(4000)]
pool = b' '.join(random.choices(words, k=400000)) + random.randbytes(1 << 20)
def put(data):
    d = hashlib.sha256(data).hexdigest()
    open(os.path.join(blobs, d), 'wb').write(data)
    return 'sha256:' + d, len(data)
diffs, listed = [], []
for l in range(layers):
    raw = io.BytesIO()
    tar = tarfile.open(fileobj=raw, mode='w', format=tarfile.PAX_FORMAT)
    made, left, n = set(), mib << 20, 0
    def add(path, data):
        parts = path.split('/')
        for i in range(1, len(parts)):
            d = '/'.join(parts[:i])
            if d not in made:
                made.add(d); t = tarfile.TarInfo(d); t.type = tarfile.DIRTYPE; t.mode = 0o755; t.mtime = 1700000000; tar.addfile(t)
        t = tarfile.TarInfo(path); t.size = len(data); t.mode = 0o644; t.mtime = 1700000000 + l
        tar.addfile(t, io.BytesIO(data))
    if entries:
        for n in range(entries // layers):
            add(f'usr/{n % 97}/{l}/f{n}', pool[n:n + 200])
    while left > 0:
        size = min(left, int(random.lognormvariate(10, 1.6)) + 1)
        if n % 200 == 0: size = min(left, 8 << 20)
        at = random.randrange(max(1, len(pool) - size)) if size < len(pool) else 0
        data = (pool[at:at + size] * (size // len(pool) + 1))[:size]
        add(f'srv/{l}/{n % 50}/f{n}', data); left -= size; n += 1
    tar.close()
    raw = raw.getvalue()
    diffs.append('sha256:' + hashlib.sha256(raw).hexdigest())
    d, s = put(gzip.compress(raw, 6, mtime=0))
    listed.append({'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip', 'digest': d, 'size': s})
config = {'architecture': 'amd64', 'os': 'linux', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': diffs}}
d, s = put(json.dumps(config).encode())
manifest = {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
    'config': {'mediaType': 'application/vnd.oci.image.config.v1+json', 'digest': d, 'size': s}, 'layers': listed}
d, s = put(json.dumps(manifest).encode())
open(os.path.join(dir, 'index.json'), 'w').write(json.dumps({'schemaVersion': 2, 'manifests': [
    {'mediaType': manifest['mediaType'], 'digest': d, 'size': s, 'annotations': {'org.opencontainers.image.ref.name': name}}]}))
open(os.path.join(dir, 'oci-layout'), 'w').write('{"imageLayoutVersion":"1.0.0"}')
PY
}

declare -A TIMES
# run ROW PROGRAM COMMAND..: one figure more for this row and program.
run() {
	local row=$1 program=$2 start end
	shift 2
	sync
	start=$(date +%s%N)
	"$@" >/dev/null 2>"$TOP/stderr" || { cat "$TOP/stderr" >&2; die "$program failed at $row"; }
	end=$(date +%s%N)
	TIMES[$row/$program]+=" $((end - start))"
}
median() { tr ' ' '\n' <<<"$1" | sed '/^$/d' | sort -n | awk '{v[NR]=$1} END {printf "%.3f", v[int((NR + 1) / 2)] / 1e9}'; }
report() { # ROW TITLE PROGRAM..
	local row=$1 title=$2 program
	shift 2
	printf '%-44s' "$title"
	for program in "$@"; do
		if [ -n "${TIMES[$row/$program]:-}" ]; then printf '  %s %s' "$program" "$(median "${TIMES[$row/$program]}")"; fi
	done
	printf '\n'
}
export UNIONMOUNT_ROOT=
podman_at() { podman --root "$TOP/podman" --runroot "$TOP/podman-run" --storage-driver overlay "$@"; }

if wanted load || wanted memory; then
	echo "bench-store: making the image of 8 layers" >&2
	make_image "$TOP/big" big 8 "$LAYER_MIB" 0
	tar -C "$TOP/big" -cf "$TOP/big.tar" .
fi
skopeo_and_tar() {
	skopeo copy -q --insecure-policy "oci:$TOP/big:big" "dir:$TOP/skopeo"
	mkdir "$TOP/untarred"
	for layer in $(python3 -c 'import json,sys; print(*[l["digest"][7:] for l in json.load(open(sys.argv[1]))["layers"]])' "$TOP/skopeo/manifest.json"); do
		tar -xzf "$TOP/skopeo/$layer" -C "$TOP/untarred"
	done
}
if wanted load; then
	for ((round = 0; round < ROUNDS; round++)); do
		export UNIONMOUNT_ROOT=$TOP/store-load
		run load unionmount "$UM" image load -q "$TOP/big"
		rm -rf "$TOP/store-load"
		if have umoci; then run load umoci umoci unpack --image "$TOP/big:big" "$TOP/bundle"; rm -rf "$TOP/bundle"; fi
		if have podman; then run load podman podman_at load -q -i "$TOP/big.tar"; podman_at rmi -fa >/dev/null 2>&1 || true; rm -rf "$TOP/podman"; fi
		if have skopeo; then run load skopeo+tar skopeo_and_tar; rm -rf "$TOP/skopeo" "$TOP/untarred"; fi
	done
	report load "image load, $((LAYER_MIB * 8)) MiB in 8 layers" unionmount umoci podman skopeo+tar
fi

if wanted diff; then
	echo "bench-store: making the image of $ENTRIES entries" >&2
	make_image "$TOP/many" many 4 0 "$ENTRIES"
	export UNIONMOUNT_ROOT=$TOP/store-diff
	"$UM" image load -q "$TOP/many" >/dev/null
	"$UM" container create --name box many:many >/dev/null
	at=$("$UM" container mount box)
	change() { python3 -c 'import os,sys
os.chdir(sys.argv[1]); n = int(sys.argv[2]); os.makedirs("new")
for i in range(n // 2): open(f"new/f{i}", "w").write("x" * 300)
for i in range(n // 4): os.unlink(f"usr/{i % 97}/0/f{i}")
for i in range(n // 4): open(f"usr/{i % 97}/1/f{i}", "a").write("y")' "$1" "$CHANGES"; }
	change "$at"
	upper=$("$UM" container inspect -f '{{.GraphDriver.Data.UpperDir}}' box)
	if have podman; then
		tar -C "$TOP/many" -cf "$TOP/many.tar" .
		podman_at load -q -i "$TOP/many.tar" >/dev/null
		id=$(podman_at images -q | head -n 1)
		podman_at create --name box "$id" /bin/true >/dev/null
		change "$(podman_at mount box)"
	fi
	for ((round = 0; round < ROUNDS; round++)); do
		run diff unionmount "$UM" layer diff --upper "$upper" -o "$TOP/diff.tar"
		run commit unionmount "$UM" container commit box "c:$round"
		run changes unionmount "$UM" container diff box
		if have podman; then
			run diff podman podman_at commit -q box "c:$round"
			run commit podman podman_at commit -q box "d:$round"
			run changes podman podman_at diff box
		fi
	done
	report diff "layer diff, $CHANGES changes (podman: commit)" unionmount podman
	report commit "container commit, the same" unionmount podman
	report changes "container diff, the same" unionmount podman
	"$UM" container rm -f box >/dev/null
	if have podman; then podman_at umount -a >/dev/null 2>&1 || true; podman_at rm -fa >/dev/null 2>&1 || true; rm -rf "$TOP/podman"; fi
fi

if wanted create; then
	make_image "$TOP/deep" deep 64 0 6400
	export UNIONMOUNT_ROOT=$TOP/store-create
	"$UM" image load -q "$TOP/deep" >/dev/null
	ours() { "$UM" container create --name "b$1" deep:deep; ls "$("$UM" container mount "b$1")"; }
	if have podman; then
		tar -C "$TOP/deep" -cf "$TOP/deep.tar" .
		podman_at load -q -i "$TOP/deep.tar" >/dev/null
		id=$(podman_at images -q | head -n 1)
	fi
	theirs() { podman_at create --name "b$1" "$id" /bin/true; ls "$(podman_at mount "b$1")"; }
	for ((round = 0; round < ROUNDS; round++)); do
		run create unionmount ours "$round"
		"$UM" container rm -f "b$round" >/dev/null
		if have podman; then run create podman theirs "$round"; podman_at umount "b$round" >/dev/null; podman_at rm -f "b$round" >/dev/null 2>&1; fi
	done
	report create "create + mount + first ls, 64 layers" unionmount podman
	if have podman; then rm -rf "$TOP/podman"; fi
fi

if wanted memory; then
	export UNIONMOUNT_ROOT=$TOP/store-memory
	rss() { python3 -c 'import resource,subprocess,sys
r = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
assert r == 0, (sys.argv, r)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, "MiB")' "$@"; }
	printf 'largest memory: image load %s' "$(rss "$UM" image load -q "$TOP/big")"
	printf ', save %s' "$(rss "$UM" image save big:big -o "$TOP/out.tar")"
	printf ', save --compress zstd %s' "$(rss "$UM" image save big:big --compress zstd -o "$TOP/out.tar")"
	printf ', check --deep %s\n' "$(rss "$UM" system check --deep)"
fi
