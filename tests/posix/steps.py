"""What programs may do to files, and what comes of it, one line for each: run on a mount and on its disk, the lines must be equal.

    steps.py prepare|run|describe SECTION DIR

`prepare` makes what the steps start from (in a lower layer, say), `run` takes the steps, `describe` says what is there
afterwards. Everything is done in forked children, as users 1000 and 1001 and as root with and without CAP_FSETID.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import stat
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
OWNER, OTHER, GROUP = 1000, 1001, 2000
CAP_FSETID = 4
# cap_net_raw+ep as setcap(8) stores it
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


# ------------------------------------------------------------------ callers

def without_fsetid():
    header = struct.pack("Ii", 0x20080522, 0)
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    words = list(struct.unpack("6I", data.raw))
    for i in range(3):
        words[i] &= ~(1 << CAP_FSETID)
    assert libc.capset(header, struct.pack("6I", *words)) == 0


def user(uid, gid, groups=()):
    def become():
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    return become


CALLERS = {
    "root": lambda: None,
    "root-without-fsetid": without_fsetid,
    "owner": user(OWNER, OWNER),
    "member": user(OTHER, OTHER, [GROUP]),
    "other": user(OTHER, OTHER),
}


def as_caller(who, work):
    """Does the work in a child; what that prints comes before what comes next here."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            CALLERS[who]()
            work()
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"{who} failed"


def outcome(step):
    try:
        result = step()
        return "ok" if result is None else result
    except OSError as error:
        return errno.errorcode.get(error.errno, error.errno)


def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def link_fd(fd, path):
    """Gives an open file a name by its magic link (AT_SYMLINK_FOLLOW)."""
    check(libc.linkat(-100, f"/proc/self/fd/{fd}".encode(), -100, path.encode(), 0x400))


def xattr(path, name):
    try:
        return os.getxattr(path, name, follow_symlinks=False).hex()
    except OSError as error:
        return errno.errorcode[error.errno]


def put(path, content=b"content", mode=0o644, uid=OWNER, gid=OWNER):
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, uid, gid)
    os.chmod(path, mode)


# ------------------------------------- what clears setuid, setgid, capabilities

def opened(flags, step):
    def run(path):
        fd = os.open(path, flags)
        try:
            return step(fd)
        finally:
            os.close(fd)
    return run


def fallocate(mode):
    return lambda fd: check(libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(4096))) and None


def copy_range(path):
    with open(os.path.join(os.path.dirname(path), "source"), "rb") as source, open(path, "r+b") as target:
        os.copy_file_range(source.fileno(), target.fileno(), 3, 0, 0)


def mapped(fd):
    with mmap.mmap(fd, 4096) as memory:
        memory[0:1] = b"M"
        memory.flush()


def splice(fd):
    read, write = os.pipe()
    os.write(write, b"spliced")
    check(libc.splice(read, None, fd, None, 7, 0))
    os.close(read)
    os.close(write)


W, RW = os.O_WRONLY, os.O_RDWR
CHANGES = {
    "nothing": opened(W, lambda fd: None),
    "write": opened(W, lambda fd: os.write(fd, b"x") and None),
    "write-nothing": opened(W, lambda fd: os.write(fd, b"") or None),
    "append": opened(W | os.O_APPEND, lambda fd: os.write(fd, b"x") and None),
    "direct": opened(W | os.O_SYNC, lambda fd: os.pwrite(fd, b"y" * 4096, 0) and None),
    "splice": opened(W, splice),
    "truncate": lambda path: os.truncate(path, 3),
    "truncate-same": lambda path: os.truncate(path, 4200),
    "ftruncate": opened(W, lambda fd: os.ftruncate(fd, 5)),
    "o-trunc": opened(W | os.O_TRUNC, lambda fd: None),
    "fallocate": opened(W, fallocate(0)),
    "punch": opened(W, fallocate(3)),
    "zero": opened(W, fallocate(16)),
    "copy": copy_range,
    "map": opened(RW, mapped),
    "chown": lambda path: os.chown(path, OWNER, OWNER),
    "chown-nothing": lambda path: os.chown(path, -1, -1),
    "chgrp": lambda path: os.chown(path, -1, GROUP),
    "chmod": lambda path: os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) ^ 0o001),
    "chmod-set": lambda path: os.chmod(path, 0o6755),
    "times": lambda path: os.utime(path, (1, 1)),
    "touch": lambda path: os.utime(path),
    "rename": lambda path: os.rename(path, path + "~") or os.rename(path + "~", path),
    "link": lambda path: os.link(path, path + "~") or os.unlink(path + "~"),
    "setxattr": lambda path: os.setxattr(path, "user.a", b"x"),
    "acl": lambda path: os.setxattr(path, ACCESS, acl((1, 6), (4, 7), (32, 1))),
}
MODES = (0o4777, 0o2777, 0o2767, 0o6777)


def setid_paths(top):
    for who in CALLERS:
        for change in CHANGES:
            for mode in MODES:
                yield who, change, mode, os.path.join(top, who, f"{change}-{mode:o}")


def setid_prepare(top):
    for who in CALLERS:
        os.mkdir(os.path.join(top, who))
        os.chmod(os.path.join(top, who), 0o777)
        put(os.path.join(top, who, "source"), b"s" * 100)
    for _, _, mode, path in setid_paths(top):
        put(path, b"c" * 4200, mode, OWNER, GROUP)
        os.setxattr(path, "security.capability", CAPABILITY)


def setid_run(top):
    for caller in CALLERS:
        def work():
            for who, change, _, path in setid_paths(top):
                if who == caller:
                    done = outcome(lambda: CHANGES[change](path))
                    print(who, os.path.basename(path), done)
        as_caller(caller, work)
    setid_describe(top)


def setid_describe(top):
    for who, _, _, path in setid_paths(top):
        found = os.stat(path)
        print(who, os.path.basename(path), oct(found.st_mode), found.st_uid, found.st_gid, found.st_size,
              xattr(path, "security.capability"), xattr(path, ACCESS))


# ------------------------------------------------------------------ ACLs

def acl(*entries):
    """Entries are (tag, permissions) or (tag, permissions, id)."""
    packed = b"".join(struct.pack("<HHI", tag, perm, *(rest or (0xffffffff,))) for tag, perm, *rest in entries)
    return struct.pack("<I", 2) + packed


ACLS = {
    "plain": None,
    "user": acl((1, 6), (2, 6, OTHER), (4, 0), (16, 7), (32, 0)),
    "masked": acl((1, 6), (2, 7, OTHER), (4, 0), (16, 4), (32, 0)),
    "refused": acl((1, 6), (2, 0, OTHER), (4, 6), (16, 7), (32, 6)),
    "group": acl((1, 6), (4, 0), (8, 6, GROUP), (16, 7), (32, 0)),
    "group-refused": acl((1, 6), (4, 0), (8, 0, GROUP), (16, 7), (32, 6)),
}


def acl_prepare(top):
    for name, entries in ACLS.items():
        path = os.path.join(top, name)
        put(path, mode=0o640)
        os.mkdir(path + ".d")
        os.chown(path + ".d", OWNER, OWNER)
        os.chmod(path + ".d", 0o750)
        put(path + ".d/inside", mode=0o666)
        if entries:
            os.setxattr(path, ACCESS, entries)
            os.setxattr(path + ".d", ACCESS, entries.replace(struct.pack("<H", 6), struct.pack("<H", 7)))
    defaults = acl((1, 7), (2, 5, OTHER), (4, 5), (8, 7, GROUP), (16, 7), (32, 0))
    for name, mode in (("inherits", 0o777), ("inherits-group", 0o2777), ("inherits-sticky", 0o1777)):
        path = os.path.join(top, name)
        os.mkdir(path)
        os.chown(path, OWNER, GROUP)
        os.chmod(path, mode)
        os.setxattr(path, DEFAULT, defaults)


def acl_run(top):
    attempts = {
        "read": lambda path: opened(os.O_RDONLY, lambda fd: None)(path),
        "write": lambda path: opened(os.O_WRONLY, lambda fd: os.write(fd, b"w") and None)(path),
        "access-x": lambda path: os.access(path, os.X_OK) and "x" or None,
        "list": lambda path: len(os.listdir(path + ".d")),
        "search": lambda path: os.stat(path + ".d/inside").st_size,
        "create": lambda path: opened(os.O_WRONLY | os.O_CREAT | os.O_EXCL, lambda fd: None)(f"{path}.d/{os.getuid()}"),
        "chmod": lambda path: os.chmod(path, 0o640),
        "setacl": lambda path: os.setxattr(path, ACCESS, ACLS["user"]),
    }
    for who in ("other", "member", "owner"):
        def work():
            for name in ACLS:
                for attempt in attempts:
                    if who == "owner" or attempt not in ("chmod", "setacl"):
                        print(who, attempt, name, outcome(lambda: attempts[attempt](os.path.join(top, name))))
        as_caller(who, work)

    def makes():
        for umask in (0o022, 0o077, 0):
            os.umask(umask)
            for directory in ("inherits", "inherits-group", "inherits-sticky"):
                for mode in (0o666, 0o600, 0o777, 0o444, 0o6755):
                    at = f"{os.path.join(top, directory)}/{os.getuid()}-{umask:o}-{mode:o}"
                    print(at[len(top):], outcome(lambda: os.close(os.open(at, os.O_CREAT | os.O_RDWR | os.O_EXCL, mode))))
                    print(at[len(top):], outcome(lambda: os.mkdir(at + ".d", mode)))
                    print(at[len(top):], outcome(lambda: os.mkfifo(at + ".p", mode)))
                    print(at[len(top):], outcome(lambda: os.symlink("x", at + ".l")))
    for who in ("owner", "member"):
        as_caller(who, makes)

    # chmod(2) of a file with an ACL changes the mask, and the ACL changes the mode.
    path = os.path.join(top, "masked")
    for mode in (0o600, 0o670, 0o4751, 0o2755):
        os.chmod(path, mode)
        print(oct(os.stat(path).st_mode), xattr(path, ACCESS))
    for entries in (acl((1, 7), (4, 1), (32, 2)), acl((1, 4), (2, 7, 5), (4, 7), (16, 3), (32, 0))):
        os.setxattr(path, ACCESS, entries)
        print(oct(os.stat(path).st_mode), xattr(path, ACCESS))
    print(outcome(lambda: os.setxattr(path, ACCESS, b"nonsense")), outcome(lambda: os.setxattr(path, ACCESS, acl((1, 7)))))
    print(outcome(lambda: os.setxattr(path, DEFAULT, ACLS["user"])), outcome(lambda: os.removexattr(path, ACCESS)))
    print(oct(os.stat(path).st_mode), xattr(path, ACCESS))
    acl_describe(top)


def acl_describe(top):
    tree_describe(top, lambda path: (xattr(path, ACCESS), xattr(path, DEFAULT)))


# ------------------------------------------------------------------ locks

def locks_prepare(top):
    put(os.path.join(top, "file"), mode=0o666)


def locks_run(top):
    path = os.path.join(top, "file")
    ofd_setlk = 37

    def flock(how):
        def attempt():
            with open(path, "r+b") as file:
                fcntl.flock(file, how | fcntl.LOCK_NB)
        return attempt

    def posix(start, length, how=fcntl.LOCK_EX):
        def attempt():
            with open(path, "r+b") as file:
                fcntl.lockf(file, how | fcntl.LOCK_NB, length, start)
        return attempt

    def ofd(start, length, how=fcntl.F_WRLCK):
        def attempt():
            with open(path, "r+b") as file:
                fcntl.fcntl(file, ofd_setlk, struct.pack("hhqqi4x", how, 0, start, length, 0))
        return attempt

    attempts = {
        "flock-ex": flock(fcntl.LOCK_EX), "flock-sh": flock(fcntl.LOCK_SH),
        "posix-0-10": posix(0, 10), "posix-5-2": posix(5, 2), "posix-20": posix(20, 0), "posix-sh": posix(0, 10, fcntl.LOCK_SH),
        "ofd-0-10": ofd(0, 10), "ofd-20": ofd(20, 0), "ofd-read": ofd(0, 10, fcntl.F_RDLCK),
    }

    def others(what):
        def work():
            for name, attempt in attempts.items():
                print("with", what, name, outcome(attempt))
            with open(path, "r+b") as file:
                asked = fcntl.fcntl(file, fcntl.F_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
                kind, whence, start, length, pid = struct.unpack("hhqqi4x", asked)
                print("getlk", kind, whence, start, length, pid in (0, -1) and pid or "somebody")
        as_caller("other", work)

    held = {
        "nothing": lambda fd: None,
        "flock-ex": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX),
        "flock-sh": lambda fd: fcntl.flock(fd, fcntl.LOCK_SH),
        "posix": lambda fd: fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0),
        "posix-shared": lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH, 10, 0),
        "ofd": lambda fd: fcntl.fcntl(fd, ofd_setlk, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0)),
    }
    for what, hold in held.items():
        # A change under the lock copies the file up: the lock stays.
        with open(path, "r+b") as file:
            hold(file)
            others(what)
            os.pwrite(file.fileno(), b"changed", 0)
            others(what + ", changed")
            with open(path, "rb"):
                pass
            others(what + ", another closed")
        others(what + ", released")


    for how in ("flock", "posix", "ofd"):
        for end in ("released", "interrupted", "killed"):
            print("waiting", how, end, waits(path, how, end))
    print("in a circle", in_a_circle(path))


def lock_and_wait(fd, how, start=0):
    if how == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
    elif how == "posix":
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, start)
    else:
        fcntl.fcntl(fd, 38, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 1, 0))


def waits(path, how, end):
    """What somebody sees who waits for a lock until it is free, until a signal comes, until the end."""
    told, tell = os.pipe()
    with open(path, "r+b") as held:
        lock_and_wait(held.fileno(), how)
        child = os.fork()
        if child == 0:
            # An open file is shared with the child, and so is its flock(2).
            held.close()

            # Python waits again after a signal unless its handler raises something.
            def interrupted(*_):
                signal.signal(signal.SIGUSR1, signal.SIG_IGN)
                raise InterruptedError(errno.EINTR, "a signal")

            def ask():
                os.write(tell, b"asks ")
                with open(path, "r+b") as wanted:
                    lock_and_wait(wanted.fileno(), how)

            signal.signal(signal.SIGUSR1, interrupted)
            try:
                os.write(tell, str(outcome(ask)).encode())
            finally:
                os._exit(0)
        os.close(tell)
        heard = os.read(told, 100)
        early = select.select([told], [], [], 0.1)[0]
        # It may not have begun to wait yet: a signal is sent until it is heard.
        while end == "interrupted" and not select.select([told], [], [], 0.05)[0]:
            os.kill(child, signal.SIGUSR1)
        if end == "killed":
            os.kill(child, signal.SIGKILL)
    while more := os.read(told, 100):
        heard += more
    os.close(told)
    _, status = os.waitpid(child, 0)
    return early, heard, status


def in_a_circle(path):
    """Two that wait for each other's byte: one is told."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    with open(path, "r+b") as file:
        mine = int(child == 0)
        lock_and_wait(file.fileno(), "posix", mine)
        os.write((ready if mine else go)[1], b"x")
        os.read((go if mine else ready)[0], 1)
        told = outcome(lambda: lock_and_wait(file.fileno(), "posix", 1 - mine))
    # EDEADLK has two names.
    told = ("ok", errno.errorcode[errno.EDEADLK]).index(told)
    if child == 0:
        os._exit(told)
    _, status = os.waitpid(child, 0)
    return sorted([told, os.waitstatus_to_exitcode(status)])


def locks_describe(top):
    tree_describe(top, lambda path: ())


# ------------------------------------------------------------------ the rest

DEEP = ["p" * 255] * 15 + ["q" * 255]


def reads_beside_direct_writes(path):
    """How many of the reads, through the page cache and through a mapping, were stale."""
    block = mmap.mmap(-1, 4096)
    written = os.open(path, os.O_WRONLY | os.O_DIRECT)
    read = os.open(path, os.O_RDONLY)
    stale = 0
    with mmap.mmap(read, 8192, prot=mmap.PROT_READ) as mapped:
        for turn in range(1, 200):
            block[:] = bytes([turn]) * 4096
            os.pwrite(written, block, 4096)
            stale += os.pread(read, 8192, 0) != bytes(4096) + block[:]
            stale += mapped[4096:] != block[:]
    os.close(written)
    os.close(read)
    return stale


def calls_prepare(top):
    put(os.path.join(top, "file"), b"0123456789" * 1000, 0o644, 0, 0)
    put(os.path.join(top, "sparse"), b"", 0o644, 0, 0)
    with open(os.path.join(top, "sparse"), "r+b") as file:
        file.seek(1 << 20)
        file.write(b"end")
    os.symlink("l" * 4095, os.path.join(top, "longest"))
    put(os.path.join(top, "direct"), bytes(8192))
    # The path is as long as a call takes it; where this directory is comes on top of that.
    for depth in range(1, len(DEEP)):
        os.mkdir("/".join(DEEP[:depth]))
    put("/".join(DEEP), b"deep")
    os.mkdir(os.path.join(top, "dir"))
    os.mkdir(os.path.join(top, "setgid"))
    os.chown(os.path.join(top, "setgid"), 0, GROUP)
    os.chmod(os.path.join(top, "setgid"), 0o2755)


def calls_run(top):
    def at(name):
        return os.path.join(top, name)

    # O_TMPFILE, and linking it in
    fd = os.open(at("dir"), os.O_TMPFILE | os.O_RDWR, 0o6640)
    os.write(fd, b"unnamed")
    print("tmpfile", oct(os.fstat(fd).st_mode), os.fstat(fd).st_nlink, os.listdir(at("dir")))
    print(outcome(lambda: link_fd(fd, at("dir/named"))))
    print(outcome(lambda: link_fd(fd, at("file"))))
    check(libc.linkat(fd, b"", -100, at("again").encode(), 0x1000))
    print(os.fstat(fd).st_nlink, os.stat(at("again")).st_ino == os.fstat(fd).st_ino)
    os.close(fd)
    fd = os.open(at("setgid"), os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
    print("tmpfile", os.fstat(fd).st_gid == GROUP, outcome(lambda: link_fd(fd, at("no"))))
    os.close(fd)
    print("tmpfile", outcome(lambda: os.close(os.open(at("dir"), os.O_TMPFILE | os.O_RDONLY))))

    # holes, and the modes of fallocate
    with open(at("sparse"), "r+b") as file:
        number = file.fileno()
        print("sparse", os.lseek(number, 0, os.SEEK_DATA), os.lseek(number, 0, os.SEEK_HOLE), outcome(lambda: os.lseek(number, 1 << 21, os.SEEK_DATA)))
        for mode in (0, 1, 2, 3, 8, 16, 17, 32, 64, 5, 128):
            done = outcome(lambda: check(libc.fallocate(number, mode, ctypes.c_long(4096), ctypes.c_long(8192))))
            print("fallocate", mode, done, os.fstat(number).st_size)
        for offset, length in ((-1, 1), (0, 0), (0, -1), (1 << 62, 1 << 62)):
            print("fallocate", offset, length, outcome(lambda: check(libc.fallocate(number, 0, ctypes.c_long(offset), ctypes.c_long(length)))))
    os.truncate(at("sparse"), 1 << 20)

    # opening, with all flags
    for flags in (os.O_DIRECTORY, os.O_CREAT | os.O_DIRECTORY, os.O_CREAT | os.O_EXCL, os.O_PATH, os.O_DIRECT, os.O_NOATIME, os.O_SYNC, os.O_WRONLY | os.O_TRUNC | os.O_APPEND):
        for name in ("file", "dir", "longest", "nothing"):
            print("open", flags, name, outcome(lambda: os.close(os.open(at(name), flags, 0o600))))
        outcome(lambda: os.unlink(at("nothing")))
    print("readlink", len(os.readlink(at("longest"))), outcome(lambda: os.symlink("l" * 4096, at("longer"))))
    for name in ("x" * 255, "x" * 256, "d" * 2000):
        print("name", len(name), outcome(lambda: os.mkdir(at(name))), outcome(lambda: os.rmdir(at(name))), outcome(lambda: os.stat(at(name))))
    print("statfs", os.statvfs(top).f_namemax)

    deep = "/".join(DEEP)
    print("path", len(deep), os.stat(deep).st_size, outcome(lambda: opened(os.O_RDWR, lambda fd: os.write(fd, b"deeper") and None)(deep)))
    print("path", open(deep, "rb").read(), outcome(lambda: os.link(deep, "link")), outcome(lambda: os.unlink("link")), outcome(lambda: os.stat(deep + "/")))
    print("path", outcome(lambda: os.rename(deep, deep[:-1])), outcome(lambda: os.mkdir(deep)), sorted(len(name) for name in os.listdir(os.path.dirname(deep))))
    print("path", outcome(lambda: os.rmdir(deep)), outcome(lambda: os.unlink(deep[:-1])))
    for depth in range(len(DEEP) - 1, 0, -1):
        os.rmdir("/".join(DEEP[:depth]))
    print("direct", reads_beside_direct_writes(at("direct")))

    # an unlinked open file
    fd = os.open(at("file"), os.O_RDWR)
    os.unlink(at("file"))
    os.pwrite(fd, b"after", 3)
    os.ftruncate(fd, 20)
    os.fchmod(fd, 0o4711)
    os.fchown(fd, 5, 6)
    os.utime(fd, (7, 8))
    os.setxattr(fd, "user.a", b"b")
    found = os.fstat(fd)
    print("unlinked", oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, found.st_size, found.st_mtime, os.listxattr(fd), os.pread(fd, 99, 0))
    print("unlinked", outcome(lambda: link_fd(fd, at("back"))), outcome(lambda: check(libc.linkat(fd, b"", -100, at("back").encode(), 0x1000))))
    print("unlinked", outcome(lambda: open(f"/proc/self/fd/{fd}", "rb").read()))
    os.close(fd)

    # a removed directory
    os.mkdir(at("gone"))
    os.setxattr(at("gone"), "user.kept", b"kept")
    os.setxattr(at("gone"), "user.removed", b"")
    fd = os.open(at("gone"), os.O_RDONLY)
    os.rmdir(at("gone"))
    os.setxattr(fd, "user.new", b"new")
    os.removexattr(fd, "user.removed")
    print("removed", {name: os.getxattr(fd, name) for name in sorted(os.listxattr(fd)) if name.startswith("user.")},
          outcome(lambda: os.setxattr(fd, "user.kept", b"", os.XATTR_CREATE)), outcome(lambda: os.setxattr(fd, "user.none", b"", os.XATTR_REPLACE)),
          outcome(lambda: os.removexattr(fd, "user.removed")), outcome(lambda: os.getxattr(fd, "user.removed")))
    print("removed", os.fstat(fd).st_nlink in (0, 1), os.listdir(fd), outcome(lambda: os.mkdir("x", dir_fd=fd)), outcome(lambda: os.stat("x", dir_fd=fd)))
    os.close(fd)

    # times of all ages
    put(at("times"), mode=0o644)
    for seconds in (-(1 << 31), -1, 0, 1 << 31, (1 << 32) + 5, 15032385535, 1 << 40):
        done = outcome(lambda: os.utime(at("times"), ns=(seconds * 10**9 + 123456789, seconds * 10**9 + 987654321)))
        found = os.stat(at("times"))
        print("times", seconds, done, found.st_atime_ns, found.st_mtime_ns)
    # devices, pipes and sockets, with all twelve bits
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        for mode in (0, 0o7777, 0o2640):
            path = at(f"node-{kind:o}-{mode:o}")
            print("mknod", outcome(lambda: os.mknod(path, kind | mode, os.makedev(7, 300))), oct(os.stat(path).st_mode), os.stat(path).st_rdev)
    print("mknod", outcome(lambda: os.mknod(at("directory"), stat.S_IFDIR | 0o777)))

    # xattrs
    for name in ("user.x", "trusted.x", "security.x", "system.x", "nonsense.x", "user.", "user." + "n" * 250, "user." + "n" * 251):
        for flags in (os.XATTR_REPLACE, 0, os.XATTR_CREATE):
            print("setxattr", name[:20], len(name), flags, outcome(lambda: os.setxattr(at("times"), name, b"v" * 100, flags)), xattr(at("times"), name))
    print("setxattr", outcome(lambda: os.setxattr(at("times"), "user.big", b"v" * 65537)), outcome(lambda: os.setxattr(at("longest"), "user.x", b"", follow_symlinks=False)))
    print("listxattr", sorted(os.listxattr(at("times"))), outcome(lambda: os.removexattr(at("times"), "user.none")))

    # renameat2
    def rename(old, new, flags):
        return outcome(lambda: check(libc.renameat2(-100, at(old).encode(), -100, at(new).encode(), flags)))
    for name in ("ra", "rb"):
        put(at(name), name.encode(), 0o644)
    os.mkdir(at("rd"))
    os.mkdir(at("rd/sub"))
    for old, new, flags in (("ra", "rb", 1), ("ra", "rb", 2), ("ra", "none", 2), ("ra", "rd", 0), ("rd", "ra", 0), ("rd", "ra", 2), ("ra", "rd", 2),
                            ("rd", "rd/sub/x", 0), ("rd/sub", "rd", 0), ("rd/sub", "rd", 2), ("dir", "rd", 0), ("ra", "rb", 3), ("ra", "rb", 8), ("ra", "ra", 1), ("ra", "ra", 0),
                            ("dir/.", "x", 0), ("ra/", "x", 0), ("rd/", "rd2/", 0), ("ra", "rw", 4)):
        print("rename", old, new, flags, rename(old, new, flags))
    print("whiteout", os.stat(at("ra")).st_rdev, oct(os.stat(at("ra")).st_mode))
    for name in ("ra", "node-20000-0"):
        print("unlink", outcome(lambda: os.rmdir(at(name))), outcome(lambda: os.unlink(at(name))), outcome(lambda: os.unlink(at(name))))
    print("rmdir", outcome(lambda: os.unlink(at("rd2"))), outcome(lambda: os.rmdir(at("rd2"))), outcome(lambda: os.rmdir(at("dir/."))), outcome(lambda: os.rmdir(at("dir/.."))))
    with open(at("times"), "rb") as file:
        print("syncfs", outcome(lambda: check(libc.syncfs(file.fileno())) and None), outcome(lambda: os.fdatasync(file.fileno())))
    calls_describe(top)


def calls_describe(top):
    # A regular file of mode 0 made by mknod(2) and the like: all of it but the times of what the steps made just now.
    tree_describe(top, lambda path: (os.lstat(path).st_size if not os.path.isdir(path) else "", os.lstat(path).st_rdev, *sorted(os.listxattr(path, follow_symlinks=False))))


def tree_describe(top, more):
    for root, dirs, files in os.walk(top):
        dirs.sort()
        for name in sorted(files + dirs):
            path = os.path.join(root, name)
            found = os.lstat(path)
            links = "" if stat.S_ISDIR(found.st_mode) else found.st_nlink
            print(path[len(top):], oct(found.st_mode), links, found.st_uid, found.st_gid, *more(path))


os.umask(0o022)
action, section, top = sys.argv[1:4]
# Who may not pass the directories above gets here all the same.
os.chdir(top)
globals()[f"{section}_{action}"](".")
