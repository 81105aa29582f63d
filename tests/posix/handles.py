"""File handles: `make DIR FILE` writes one for every file below DIR, `open DIR FILE` opens them and says what is in them."""
import ctypes
import errno
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]


action, top, store = sys.argv[1:4]
if action == "make":
    with open(store, "w") as out:
        for root, _, files in os.walk(top):
            for name in files:
                path = os.path.join(root, name)
                handle, mount = Handle(bytes=128), ctypes.c_int()
                if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0) != 0:
                    sys.exit(f"{path}: {os.strerror(ctypes.get_errno())}")
                print(os.path.relpath(path, top), handle.type, bytes(handle.data[:handle.bytes]).hex(), file=out)
else:
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for line in sorted(open(store)):
        path, kind, data = line.split()
        data = bytes.fromhex(data)
        handle = Handle(bytes=len(data), type=int(kind))
        handle.data[:len(data)] = data
        found = libc.open_by_handle_at(at, ctypes.byref(handle), os.O_RDONLY)
        if found < 0:
            print(path, errno.errorcode[ctypes.get_errno()])
        else:
            print(path, os.read(found, 100).decode())
            os.close(found)
