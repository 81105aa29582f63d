//! Reading a directory while it changes: it ends, and each entry that was there all the time comes
//! exactly once.
//!
//! In small directories and in such that take many requests; of layers, of the upper, of a volume;
//! with the kernel's own cache of the listing and without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, openat, seek};
use support::Stack;
use support::images::{empty, is_here};
use support::transport::transports;

/// An open directory that is read a few entries at a time.
struct Reader {
    fd: File,
}

impl Reader {
    fn open(dir: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, dir, flags, Mode::empty()).unwrap();
        Self { fd: fd.into() }
    }

    /// The next entries but `.` and `..`, with the positions behind them; `None` at the end.
    fn next(&self, bytes: usize) -> Option<Vec<(String, u64)>> {
        let mut buffer = vec![MaybeUninit::uninit(); bytes];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        let mut found = Vec::new();
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            any = true;
            let name = entry.file_name().to_str().unwrap().to_owned();
            if name != "." && name != ".." {
                found.push((name, entry.next_entry_cookie()));
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
        any.then_some(found)
    }

    fn seek(&self, position: u64) {
        seek(&self.fd, SeekFrom::Start(position)).unwrap();
    }

    /// All that is left, in pieces of `bytes`; `after` is called for each piece. More than `most`
    /// entries are an endless listing.
    fn all(
        &self,
        what: &str,
        bytes: usize,
        most: usize,
        mut after: impl FnMut(&[(String, u64)]),
    ) -> Seen {
        let mut seen = Seen::new();
        let mut count = 0;
        while let Some(piece) = self.next(bytes) {
            after(&piece);
            for (name, _) in piece {
                count += 1;
                *seen.entry(name).or_default() += 1;
            }
            assert!(count <= most, "{what}: this listing does not end");
        }
        seen
    }
}

/// How often each name came.
type Seen = BTreeMap<String, usize>;

/// Every name of `beginning` exactly once, `count` of them.
fn assert_once(what: &str, seen: &Seen, beginning: &str, count: usize) {
    let names: Vec<_> = seen
        .iter()
        .filter(|(name, _)| name.starts_with(beginning))
        .collect();
    let twice: Vec<_> = names.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{what}: {twice:?}");
    assert_eq!(names.len(), count, "{what}: entries that were there");
}

/// `count` entries that stay and as many that come and go.
fn fill(dir: &Path, count: usize) {
    fs::create_dir_all(dir).unwrap();
    for number in 0..count {
        File::create(dir.join(format!("stays-{number}"))).unwrap();
        File::create(dir.join(format!("moves-{number}"))).unwrap();
    }
}

/// Enough for one request, and for many.
const SIZES: [usize; 2] = [3, 600];
/// Bytes of one getdents(2): a few entries, and many.
const PIECES: [usize; 2] = [256, 32 * 1024];

fn while_it_changes(what: &str, dir: &Path, count: usize, bytes: usize) {
    let at_most = 4 * count + 16;
    let mut fresh = 0;
    // Each entry that may move is renamed when it is met.
    let reader = Reader::open(dir);
    let seen = reader.all(what, bytes, at_most, |piece| {
        for (name, _) in piece.iter().filter(|(name, _)| name.starts_with("moves")) {
            fresh += 1;
            let to = format!("moves-again-{bytes}-{fresh}");
            fs::rename(dir.join(name), dir.join(to)).unwrap();
        }
    });
    assert_once(&format!("{what}, renamed"), &seen, "stays", count);
    // rewinddir(3) shows what came meanwhile.
    reader.seek(0);
    let seen = reader.all(what, bytes, at_most, |_| {});
    assert_once(&format!("{what}, rewound"), &seen, "stays", count);
    assert_once(&format!("{what}, rewound"), &seen, "moves", count);
    // Each is removed and made again when it is met.
    let reader = Reader::open(dir);
    let seen = reader.all(what, bytes, at_most, |piece| {
        for (name, _) in piece.iter().filter(|(name, _)| name.starts_with("moves")) {
            fs::remove_file(dir.join(name)).unwrap();
            File::create(dir.join(name)).unwrap();
        }
    });
    assert_once(&format!("{what}, made again"), &seen, "stays", count);
    // Behind any position there is what was there before, also when its entry is gone.
    let reader = Reader::open(dir);
    let mut order = Vec::new();
    reader.all(what, bytes, at_most, |piece| order.extend_from_slice(piece));
    let (gone, position) = order[count].clone();
    fs::remove_file(dir.join(&gone)).unwrap();
    File::create(dir.join("stays-new")).unwrap();
    reader.seek(position);
    let seen = reader.all(what, bytes, at_most, |_| {});
    for (name, _) in &order[count + 1..] {
        assert_eq!(seen.get(name), Some(&1), "{what}, behind {gone}: {name}");
    }
    for (name, _) in &order[..=count] {
        assert_eq!(seen.get(name), None, "{what}, behind {gone}: {name}");
    }
    fs::remove_file(dir.join("stays-new")).unwrap();
    File::create(dir.join(&gone)).unwrap();
}

/// Others list the directory while one is in the middle of it and entries go.
fn while_others_list(what: &str, dir: &Path, count: usize, bytes: usize) {
    let reader = Reader::open(dir);
    let mut left: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("moves")
        {
            left.push(path);
        }
    }
    let seen = reader.all(what, bytes, 4 * count + 16, |piece| {
        // What was met last, which is where the reader is, and some that it will not meet any more.
        for (name, _) in piece.iter().filter(|(name, _)| name.starts_with("moves")) {
            let path = dir.join(name);
            left.retain(|other| *other != path);
            fs::remove_file(path).unwrap();
        }
        if let Some(path) = left.pop() {
            fs::remove_file(path).unwrap();
        }
        // Twice: the first may fill the kernel's cache, the second read from it.
        for _ in 0..2 {
            let other = Reader::open(dir).all(what, 32 * 1024, 4 * count + 16, |_| {});
            assert_once(&format!("{what}, the other one"), &other, "stays", count);
        }
    });
    assert_once(&format!("{what}, beside others"), &seen, "stays", count);
    let seen = Reader::open(dir).all(what, bytes, 4 * count + 16, |_| {});
    assert_once(what, &seen, "stays", count);
    assert_once(what, &seen, "moves", 0);
}

fn each_size(what: &str, dir: &Path, prepare: impl Fn(&str, usize)) {
    for count in SIZES {
        for bytes in PIECES {
            let name = format!("d{count}-{bytes}");
            prepare(&name, count);
            let what = format!("{what}, {count} entries, {bytes} bytes");
            while_it_changes(&what, &dir.join(&name), count, bytes);
            while_others_list(&what, &dir.join(&name), count, bytes);
        }
    }
}

#[test]
fn a_directory_that_changes_is_read_to_its_end() {
    support::need_fuse!();
    for transport in transports() {
        let stack = Stack::new(2).option(&format!("transport={transport},volatile"));
        for count in SIZES {
            for bytes in PIECES {
                fill(&stack.lower(0).join(format!("low/d{count}-{bytes}")), count);
                fs::create_dir_all(stack.lower(1).join(format!("low/d{count}-{bytes}"))).unwrap();
            }
        }
        let mount = stack.mount();
        let what = |place: &str| format!("{transport}, {place}");
        each_size(&what("a layer"), &mount.path("low"), |_, _| {});
        let new = mount.path("new");
        each_size(&what("the upper"), &new, |name, count| {
            fill(&new.join(name), count)
        });
        mount.unmount();
    }
}

/// So many names of up to eight bytes fill the kernel's page of a listing, with `.` and `..`.
const FILL_A_PAGE: usize = 126;

/// The entry that a reader is behind goes, and another one lists the directory, which the kernel
/// keeps: it must find the reader's place also where the listing ends with a page.
fn while_the_listing_ends_with_a_page(what: &str, dir: &Path) {
    for left in [FILL_A_PAGE, 2 * FILL_A_PAGE + 2] {
        let dir = dir.join(left.to_string());
        fs::create_dir_all(&dir).unwrap();
        for number in 0..=left {
            File::create(dir.join(format!("f{number}"))).unwrap();
        }
        let reader = Reader::open(&dir);
        let mut seen: Vec<String> = Vec::new();
        let names = |piece: Vec<(String, u64)>| piece.into_iter().map(|(name, _)| name);
        seen.extend(names(reader.next(256).unwrap()));
        fs::remove_file(dir.join(seen.last().unwrap())).unwrap();
        for _ in 0..2 {
            assert_eq!(fs::read_dir(&dir).unwrap().count(), left, "{what}");
        }
        while let Some(piece) = reader.next(256) {
            seen.extend(names(piece));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), left + 1, "{what}, {left} names");
    }
}

#[test]
fn a_reader_keeps_its_place_where_a_listing_ends_with_a_page() {
    support::need_fuse!();
    for transport in transports() {
        let (stack, host) = (Stack::new(1), Stack::new(0));
        fs::create_dir(stack.lower(0).join("v")).unwrap();
        let stack = stack
            .option(&format!("transport={transport},volatile"))
            .option(&format!("volume={}:/v", host.upper().display()));
        let mount = stack.mount();
        while_the_listing_ends_with_a_page(&format!("{transport}, the upper"), &mount.path("new"));
        while_the_listing_ends_with_a_page(&format!("{transport}, a volume"), &mount.path("v"));
        mount.unmount();
    }
}

/// Reads and changes directories of a volume that is `host`.
fn in_a_volume(transport: &str, kind: &str, host: &Path) {
    let stack = Stack::new(1)
        .option(&format!("transport={transport},volatile"))
        .option(&format!("volume={}:/v", host.display()));
    fs::create_dir(stack.lower(0).join("v")).unwrap();
    let mount = stack.mount();
    let at = mount.path("v");
    let what = format!("{transport}, a volume on {kind}");
    each_size(&what, &at, |name, count| fill(&at.join(name), count));
    mount.unmount();
}

#[test]
fn a_directory_of_a_volume_that_changes_is_read_to_its_end() {
    support::need_fuse!();
    for transport in transports() {
        let host = Stack::new(0);
        in_a_volume(transport, "this disk", &host.upper());
    }
    // Each has an idea of its own of what a reader sees that came after it.
    for kind in ["xfs", "btrfs", "tmpfs"]
        .into_iter()
        .filter(|kind| is_here(kind))
    {
        let host = Stack::new(0);
        let disk = empty(host.dir.path(), "disk", kind);
        in_a_volume("dev", kind, &disk.at);
        drop(disk);
    }
}
