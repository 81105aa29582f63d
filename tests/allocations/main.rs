//! What is allocated for a request once everything it needs is known: nothing on the hot path, and
//! for a listing not more than a handful of times, however many entries it has.
//!
//! Counted are the calls of the allocator that the serving thread makes.

#![allow(unsafe_code, reason = "a global allocator is unsafe to write")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::client::{Client, op};
use unionmount::internal::fuse::Negotiated;
use unionmount::internal::fuse::Outcome;
use unionmount::union::Config;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it came; counting touches nothing
// but a plain number of the thread, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that is ending has no number any more.
    CALLS
        .try_with(|calls| calls.set(calls.get() + 1))
        .unwrap_or_default();
}

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// Entries of the large directory.
const ENTRIES: usize = 1000;
/// How often a request is repeated while it is counted.
const TIMES: u64 = 50;

struct Served {
    _dir: tempfile::TempDir,
    client: Client,
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let name = CString::new(name).unwrap();
    rustix::fs::setxattr(path, &*name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn served() -> Served {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = tempfile::Builder::new()
        .prefix("allocations.")
        .tempdir_in(base)
        .unwrap();
    let at = |path: &str| dir.path().join(path);
    for name in ["lower/many", "upper", "work"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("lower/file"), vec![7; 256 * 1024]).unwrap();
    fs::write(at("lower/copied"), "old").unwrap();
    fs::write(at("lower/labelled"), "x").unwrap();
    set_xattr(&at("lower/labelled"), "user.label", b"x");
    for number in 0..ENTRIES {
        fs::write(at(&format!("lower/many/entry-{number}")), "").unwrap();
    }
    let config = Config {
        lowers: vec![at("lower")],
        upper: Some(at("upper")),
        work: Some(at("work")),
        ..Config::default()
    };
    let agreed = Negotiated {
        zero_message_open: true,
        zero_message_opendir: true,
        keeps_cache: true,
        long_setxattr: true,
        lifetime: Duration::from_secs(60),
        ..Negotiated::default()
    };
    let client = Client::new(&config, agreed);
    Served { _dir: dir, client }
}

/// How often a request allocates, once it is warm.
fn allocations(client: &mut Client, node: u64, opcode: u32, arg: &[u8], rest: &[u8]) -> f64 {
    client.ask(node, opcode, arg, rest);
    client.ask(node, opcode, arg, rest);
    let before = calls();
    for _ in 0..TIMES {
        client.ask(node, opcode, arg, rest);
    }
    let each = (calls() - before) as f64 / TIMES as f64;
    println!("opcode {opcode}: {each} allocations per request");
    each
}

/// A request that must not allocate, and must succeed or fail as `expected` says.
fn nothing(
    client: &mut Client,
    what: &str,
    node: u64,
    (opcode, arg, rest): (u32, &[u8], &[u8]),
    expected: Outcome,
) {
    let each = allocations(client, node, opcode, arg, rest);
    assert_eq!(client.ask(node, opcode, arg, rest), expected, "{what}");
    assert_eq!(each, 0.0, "{what}");
}

#[test]
fn the_hot_path_allocates_nothing() {
    let mut served = served();
    let client = &mut served.client;
    let root = 1;
    let file = client.lookup(root, b"file");
    let copied = client.lookup(root, b"copied");
    let labelled = client.lookup(root, b"labelled");
    let many = client.lookup(root, b"many");
    let attr = Outcome::Reply(104);
    for node in [root, file, many] {
        nothing(client, "getattr", node, (op::GETATTR, &[0; 16], b""), attr);
        nothing(
            client,
            "statx",
            node,
            (op::STATX, &[0; 24], b""),
            Outcome::Reply(288),
        );
    }
    let entry = Outcome::Reply(128);
    nothing(client, "lookup", root, (op::LOOKUP, &[], b"file\0"), entry);
    nothing(
        client,
        "lookup of a directory",
        root,
        (op::LOOKUP, &[], b"many\0"),
        entry,
    );
    nothing(
        client,
        "lookup of nothing",
        root,
        (op::LOOKUP, &[], b"missing\0"),
        entry,
    );
    for size in [4096u32, 128 * 1024] {
        let arg = support::client::read(0, size);
        let full = Outcome::Reply(size as usize);
        nothing(
            client,
            "read of a lower file",
            file,
            (op::READ, &arg, b""),
            full,
        );
    }
    // The first write copies the file up.
    let data = [7; 4096];
    let write = (op::WRITE, &support::client::write(0, 4096)[..], &data[..]);
    nothing(client, "write", copied, write, Outcome::Reply(8));
    nothing(
        client,
        "getattr of an upper file",
        copied,
        (op::GETATTR, &[0; 16], b""),
        attr,
    );
    let read = support::client::read(0, 4096);
    nothing(
        client,
        "read of an upper file",
        copied,
        (op::READ, &read, b""),
        Outcome::Reply(4096),
    );
    // A copy has our own xattrs, the labelled one another's: neither has this one.
    for (what, node) in [
        ("plain", file),
        ("copy", copied),
        ("labelled", labelled),
        ("directory", root),
    ] {
        let ask = (op::GETXATTR, &[0; 8][..], &b"security.capability\0"[..]);
        let absent = Outcome::Error(libc::ENODATA);
        nothing(client, &format!("getxattr of a {what}"), node, ask, absent);
    }
    // Refusals are as frequent.
    let stale = Outcome::Error(libc::ESTALE);
    nothing(
        client,
        "unknown node",
        4711,
        (op::GETATTR, &[0; 16], b""),
        stale,
    );
    let exists = Outcome::Error(libc::EEXIST);
    nothing(
        client,
        "mkdir of what is there",
        root,
        (op::MKDIR, &[0; 8], b"file\0"),
        exists,
    );
    let absent = Outcome::Error(libc::ENOENT);
    nothing(
        client,
        "unlink of nothing",
        root,
        (op::UNLINK, &[], b"missing\0"),
        absent,
    );
    let odd = Outcome::Error(libc::EINVAL);
    nothing(
        client,
        "a name with a slash",
        root,
        (op::LOOKUP, &[], b"a/b\0"),
        odd,
    );
}

#[test]
fn a_listing_allocates_for_the_request_not_for_the_entry() {
    let mut served = served();
    let client = &mut served.client;
    let many = client.lookup(1, b"many");
    for (opcode, each, most) in [(op::READDIR, 40, 4.0), (op::READDIRPLUS, 168, 4.0)] {
        let arg = support::client::read(0, 512 * 1024);
        // Names alone, until some of them are looked up.
        client.ask(many, opcode, &arg, b"");
        client.lookup(many, b"entry-1");
        client.lookup(many, b"entry-2");
        let Outcome::Reply(size) = client.ask(many, opcode, &arg, b"") else {
            panic!("no listing");
        };
        assert!(
            size > ENTRIES * (each - 8),
            "{size} bytes are not all entries"
        );
        // `.` and `..` are made into entries, and one buffer is used for all the names.
        let whole = allocations(client, many, opcode, &arg, b"");
        assert!(whole <= most, "{whole} allocations for {ENTRIES} entries");
        // In small pieces, as the kernel asks: those behind the first have only the buffer.
        let arg = support::client::read(500, 4096);
        let piece = allocations(client, many, opcode, &arg, b"");
        assert!(piece <= 1.0, "{piece} allocations for a page of entries");
    }
}
