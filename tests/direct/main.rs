//! Direct I/O beside the page cache: what was acknowledged as written is what every reader gets
//! from then on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use support::transport::transports;
use support::{Stack, shell};

/// Writes a file again and again by io_submit(2), each time with another byte, in pieces that are
/// under way at the same time, while others read it through the page cache. When all pieces are
/// done, all of it must read as was written. The structures are those of `linux/aio_abi.h`.
const PROGRAM: &str = r"
import ctypes, mmap, os, struct, sys, threading, time
PIECES, PIECE = 16, 16384
IO_SETUP, IO_GETEVENTS, IO_SUBMIT = {'x86_64': (206, 208, 209)}.get(os.uname().machine, (0, 4, 2))
IOCB_CMD_PWRITE = 1
libc = ctypes.CDLL(None, use_errno=True)
context = ctypes.c_ulong(0)
if libc.syscall(IO_SETUP, PIECES, ctypes.byref(context)): print('none'); sys.exit()
path, seconds = sys.argv[1], float(sys.argv[2])
try: direct = os.open(path, os.O_RDWR | os.O_DIRECT)
except OSError: print('none'); sys.exit()
size = PIECES * PIECE
os.ftruncate(direct, size)
over = threading.Event()
def read_on():
    fd = os.open(path, os.O_RDONLY)
    while not over.is_set(): os.pread(fd, size, 0)
    os.close(fd)
readers = [threading.Thread(target=read_on) for _ in range(2)]
for reader in readers: reader.start()
source = mmap.mmap(-1, size)
address = ctypes.addressof(ctypes.c_char.from_buffer(source))
def control_block(number):
    at = number * PIECE
    return ctypes.create_string_buffer(struct.pack('=QIIHhIQQqQII', number, 0, 0, IOCB_CMD_PWRITE, 0, direct, address + at, PIECE, at, 0, 0, 0), 64)
check = os.open(path, os.O_RDONLY)
end, rounds, stale = time.monotonic() + seconds, 0, 0
while time.monotonic() < end and not stale:
    rounds += 1
    byte = bytes([1 + rounds % 255])
    source[:] = byte * size
    blocks = [control_block(number) for number in range(PIECES)]
    pointers = (ctypes.c_void_p * PIECES)(*map(ctypes.addressof, blocks))
    assert libc.syscall(IO_SUBMIT, context, PIECES, pointers) == PIECES, ctypes.get_errno()
    events = ctypes.create_string_buffer(32 * PIECES)
    assert libc.syscall(IO_GETEVENTS, context, PIECES, PIECES, events, None) == PIECES
    for number in range(PIECES):
        assert struct.unpack_from('=q', events, 32 * number + 16)[0] == PIECE
    found = os.pread(check, size, 0)
    stale = sum(found[at:at + 1] != byte for at in range(0, size, 4096))
over.set()
for reader in readers: reader.join()
print('stale' if stale else 'true')
";

/// How long is looked for a stale page: with the capability that is left out it takes a fraction of
/// that.
const SECONDS: &str = "2";

#[test]
fn asynchronous_direct_writes_leave_no_stale_page() {
    support::need_fuse!();
    for transport in transports() {
        for place in ["new", "low"] {
            let stack = Stack::new(1).option(&format!("transport={transport},volatile"));
            stack.file(0, "low", "low");
            let script = stack.dir.path().join("aio.py");
            std::fs::write(&script, PROGRAM).unwrap();
            let mount = stack.mount();
            shell(&mount.at, "echo new > new");
            let command = format!("python3 {} {place} {SECONDS}", script.display());
            match shell(&mount.at, &command).trim() {
                "none" => eprintln!("skipped: no asynchronous I/O here"),
                said => assert_eq!(said, "true", "{transport}, {place}"),
            }
            mount.unmount();
        }
    }
}
