#!/usr/bin/env python3
"""Directory trees for the real-root test: describe, compare, diff into a layer.

    tree.py manifest ROOT [--ino]          one line per entry, on stdout
    tree.py compare A B [--since SECONDS] [--expect TABLE]
    tree.py layer OLD NEW OUT [--opaque DIR]..

`manifest` writes all that a program can learn about a tree: type, mode, owner,
size, link count and which names are one file, device number, mtime, symlink
target, SHA-256 of the bytes, xattrs; with --ino also st_ino. It fails if a
listing and lstat do not agree (type; with --ino the inode number, too).

`compare` prints the differences of two manifests and fails if there are any.
With --since, an mtime after that moment only has to be after it in both: the
same steps done twice do not touch files at the same nanosecond. With --expect,
the fields that a table names for a path are not compared.

`layer` writes what is to be laid over OLD to get NEW, in the form of an image
layer: changed and new entries as they are, `.wh.NAME` for what is gone, and
`.wh..wh..opq` in each DIR given, whose content is then listed in full.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def text(name):
    """Bytes as printable text, losslessly: names need not be UTF-8."""
    return name.decode("utf-8", "surrogateescape").encode("unicode_escape").decode()


def walk(root):
    """Yields (path below root, DirEntry or None for the root) in byte order."""
    yield b"", None
    pending = [b""]
    while pending:
        parent = pending.pop()
        with os.scandir(os.path.join(root, parent) if parent else root) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
        for entry in entries:
            path = os.path.join(parent, entry.name)
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)


def xattrs(path):
    return {
        name: os.getxattr(path, name, follow_symlinks=False).hex()
        for name in sorted(os.listxattr(path, follow_symlinks=False))
    }


def digest(path):
    sha = hashlib.sha256()
    # A 000-mode or write-only file is readable for root, here as in the layers.
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def describe(path, status):
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    entry = {
        "type": kind,
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": f"{status.st_uid}:{status.st_gid}",
        "mtime": status.st_mtime_ns,
    }
    if kind != "dir":
        # A directory's size and link count are the disk's own business.
        entry["size"] = status.st_size
        entry["links"] = status.st_nlink
    if kind in ("char", "block"):
        entry["device"] = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if kind == "symlink":
        entry["target"] = text(os.readlink(path))
    if kind == "file":
        entry["sha256"] = digest(path)
    if found := xattrs(path):
        entry["xattrs"] = found
    return entry


def manifest(args):
    root = os.fsencode(args.root)
    first_name = {}
    digests = {}
    problems = 0
    lines = []
    for path, listed in walk(root):
        full = os.path.join(root, path) if path else root
        status = os.lstat(full)
        if listed is not None:
            agree = (
                listed.is_dir(follow_symlinks=False) == stat.S_ISDIR(status.st_mode)
                and listed.is_symlink() == stat.S_ISLNK(status.st_mode)
                and (not args.ino or listed.inode() == status.st_ino)
            )
            if not agree:
                print(f"{text(path)}: readdir says inode {listed.inode()}, lstat {status.st_ino}", file=sys.stderr)
                problems += 1
        entry = describe(full, status)
        if "sha256" in entry and status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            entry["same as"] = text(first_name.setdefault(key, path))
        if args.ino:
            entry["ino"] = status.st_ino
        lines.append((path, entry))
    # `walk` orders per directory; sorted here so that manifests can be read
    # with diff(1) as well.
    lines.sort(key=lambda line: line[0])
    # The name that hard links are called by must not depend on the order of
    # the walk either.
    for path, entry in lines:
        if "same as" in entry:
            entry["same as"] = digests.setdefault(entry["same as"], text(path))
    for path, entry in lines:
        sys.stdout.write(json.dumps([text(path) or ".", entry], sort_keys=True) + "\n")
    if problems:
        sys.exit(f"{problems} entries where a listing and lstat disagree")


def load(path):
    with open(path, encoding="ascii") as file:
        return dict(json.loads(line) for line in file)


def load_expected(path):
    """Lines of `FIELDS PATTERN # reason`; the reason is not optional."""
    table = []
    if path:
        with open(path, encoding="utf-8") as file:
            for line in file:
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                rule, reason = line.split(" # ", 1)
                fields, pattern = rule.split(None, 1)
                assert reason
                table.append((re.compile(pattern.strip()), set(fields.split(","))))
    return table


def compare(args):
    left, right = load(args.a), load(args.b)
    expected = load_expected(args.expect)
    since = int(args.since * 1e9) if args.since else None
    differences = []
    for path in sorted(left.keys() | right.keys()):
        if path not in left or path not in right:
            differences.append(f"{path}: only in {args.b if path not in left else args.a}")
            continue
        one, other = left[path], right[path]
        ignored = set()
        for pattern, fields in expected:
            if pattern.fullmatch(path):
                ignored |= fields
        for field in sorted(one.keys() | other.keys()):
            a, b = one.get(field), other.get(field)
            if a == b or field in ignored:
                continue
            if field == "mtime" and since and a is not None and b is not None and min(a, b) >= since:
                continue
            differences.append(f"{path}: {field}: {a} != {b}")
    for line in differences[:60]:
        print(line)
    if len(differences) > 60:
        print(f".. and {len(differences) - 60} more")
    print(f"{len(left)} and {len(right)} entries, {len(differences)} differences")
    sys.exit(1 if differences else 0)


def same(old, new):
    """Whether an entry of NEW needs no place in the layer. Bytes are not read:
    whatever changes them changes size, mtime or ctime, and OLD and NEW differ
    in ctime anyway."""
    a, b = os.lstat(old), os.lstat(new)
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev, a.st_mtime_ns) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev, b.st_mtime_ns):
        return False
    if not stat.S_ISDIR(a.st_mode) and (a.st_size, a.st_nlink) != (b.st_size, b.st_nlink):
        return False
    if stat.S_ISLNK(a.st_mode) and os.readlink(old) != os.readlink(new):
        return False
    return xattrs(old) == xattrs(new)


def layer(args):
    old, new, out = (os.fsencode(path) for path in (args.old, args.new, args.out))
    opaque = {os.fsencode(path).strip(b"/") for path in args.opaque}
    chosen = set()
    marks = []

    def choose(path):
        while path not in chosen:
            chosen.add(path)
            path = os.path.dirname(path)

    def below_opaque(path):
        while path:
            if path in opaque:
                return True
            path = os.path.dirname(path)
        return False

    links = {}
    for path, entry in walk(new):
        full_old, full_new = os.path.join(old, path), os.path.join(new, path)
        status = os.lstat(full_new)
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            links.setdefault(status.st_ino, []).append(path)
        if below_opaque(path) or not os.path.lexists(full_old) or not same(full_old, full_new):
            choose(path)
        if path in opaque:
            marks.append(os.path.join(path, b".wh..wh..opq"))
        elif stat.S_ISDIR(status.st_mode) and not below_opaque(path) and os.path.isdir(full_old) and not os.path.islink(full_old):
            for gone in set(os.listdir(full_old)) - set(os.listdir(full_new)):
                choose(path)
                marks.append(os.path.join(path, b".wh." + gone))
    # One file with several names stays one file: all of them or none.
    for names in links.values():
        if any(name in chosen for name in names):
            for name in names:
                choose(name)

    # The marks come first, since tar sets the times of directories last.
    os.makedirs(out)
    for mark in sorted(marks):
        target = os.path.join(out, mark)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb"):
            pass
    options = [b"--acls", b"--xattrs", b"--xattrs-include=*", b"--numeric-owner", b"--sparse"]
    pack = subprocess.Popen(
        [b"tar", b"-C", new, b"-cf", b"-", *options, b"--no-recursion", b"--null", b"--verbatim-files-from", b"-T", b"-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    unpack = subprocess.Popen([b"tar", b"-C", out, b"-xpf", b"-", b"--delay-directory-restore", b"--warning=no-timestamp", *options], stdin=pack.stdout)
    pack.stdout.close()
    pack.stdin.write(b"".join((b"./" + path if path else b".") + b"\0" for path in sorted(chosen)))
    pack.stdin.close()
    if pack.wait() or unpack.wait():
        shutil.rmtree(out)
        sys.exit("tar failed")
    print(f"{text(out)}: {len(chosen)} entries, {len(marks)} marks")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("manifest")
    command.add_argument("root")
    command.add_argument("--ino", action="store_true")
    command.set_defaults(run=manifest)
    command = commands.add_parser("compare")
    command.add_argument("a")
    command.add_argument("b")
    command.add_argument("--since", type=float)
    command.add_argument("--expect")
    command.set_defaults(run=compare)
    command = commands.add_parser("layer")
    command.add_argument("old")
    command.add_argument("new")
    command.add_argument("out")
    command.add_argument("--opaque", action="append", default=[])
    command.set_defaults(run=layer)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
