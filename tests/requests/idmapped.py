"""Mounts SRC at DST with the ids 0.. shown as 10000.. (mount_setattr(2), MOUNT_ATTR_IDMAP)."""
import ctypes
import os
import sys

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


class MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def call(what, *arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def user_namespace():
    """A descriptor of a namespace with the mapping, made by a child that lives only as long as that takes."""
    ready, is_ready = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        libc.unshare(CLONE_NEWUSER)
        os.write(is_ready, b"x")
        os.read(hold, 1)
        os._exit(0)
    os.read(ready, 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as mapping:
            mapping.write("0 10000 65536\n")
    descriptor = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.close(release)
    os.waitpid(child, 0)
    return descriptor


source, target = (os.fsencode(path) for path in sys.argv[1:3])
tree = call("open_tree", OPEN_TREE, -100, source, 1 | os.O_CLOEXEC)
attr = MountAttr(0x00100000, 0, 0, user_namespace())
call("mount_setattr", MOUNT_SETATTR, tree, b"", 0x1000, ctypes.byref(attr), ctypes.sizeof(attr))
call("move_mount", MOVE_MOUNT, tree, b"", -100, target, 4)
