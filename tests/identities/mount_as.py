"""mount_as.py UID MOUNTPOINT PROGRAM [OPTION..]: root mounts FUSE, and PROGRAM serves it as an ordinary user.

What mount.fuse3 does with setuid=: the descriptor is opened and mounted here and handed over as /dev/fd/N.
"""
import ctypes
import os
import sys

user, mountpoint, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
device = os.open("/dev/fuse", os.O_RDWR)
data = f"fd={device},rootmode=40000,user_id={user},group_id={user},allow_other,default_permissions"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"test", mountpoint.encode(), b"fuse.unionmount", 0, data.encode()) != 0:
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
os.set_inheritable(device, True)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
os.execv(program[0], program + [f"/dev/fd/{device}"])
