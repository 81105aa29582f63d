//! Compares the tree of a union with the oracle's.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::ops::show;
use super::stack::{At, Time};
use super::tree::{Object, Tree};

/// What the modification time of an object must be.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Exactly(Time),
    /// Set by the system, in an operation that began then.
    Since(Time),
}

/// What is known about one object of the oracle, from its first appearance to its end.
#[derive(Debug)]
struct Known {
    oracle_mtime: Time,
    expect: Expect,
    /// The union's `st_ino` of it, once seen.
    ino: Option<u64>,
}

/// The life of the objects of the oracle, by its inode numbers. It looks after every single
/// operation, so that a number that the disk uses again is not taken for the object that had it
/// before.
#[derive(Debug, Default)]
pub struct History {
    /// Layers have AUFS's own directories, one in a directory, which are hidden but count as
    /// subdirectories.
    pub leftovers: bool,
    objects: HashMap<u64, Known>,
}

/// Slack in the number of blocks: xattr blocks, and what the disk allocates in advance.
const BLOCK_SLACK: u64 = 64;

pub fn now() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec as u32)
}

/// Whether two changes of a file that are seen apart have different times (kernel 6.13 and newer).
fn fine_grained() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        (0..8).all(|_| {
            let before = rustix::fs::fstat(&file).unwrap().st_mtime_nsec;
            rustix::io::pwrite(&file, b"x", 0).unwrap();
            rustix::fs::fstat(&file).unwrap().st_mtime_nsec != before
        })
    })
}

impl History {
    /// Takes notice of the oracle after an operation that began at `start`.
    pub fn observe(&mut self, tree: &Tree, held: &[Object], start: Time) {
        let mut objects = HashMap::new();
        for object in tree.values().chain(held) {
            if objects.contains_key(&object.ino) {
                continue;
            }
            let soon = (now().0 + 2, 0);
            let fresh = if object.mtime >= start && object.mtime < soon {
                Expect::Since(start)
            } else {
                Expect::Exactly(object.mtime)
            };
            let known = match self.objects.remove(&object.ino) {
                None => Known {
                    oracle_mtime: object.mtime,
                    expect: fresh,
                    ino: None,
                },
                Some(mut known) => {
                    // The clock of the disk may not have moved on since the operation before.
                    let unsure = object.mtime >= start && !fine_grained();
                    if known.oracle_mtime != object.mtime || unsure {
                        known.oracle_mtime = object.mtime;
                        known.expect = fresh;
                    }
                    known
                }
            };
            objects.insert(object.ino, known);
        }
        self.objects = objects;
    }

    /// Compares everything. Errors: every difference, a line each.
    pub fn compare(
        &mut self,
        want: &Tree,
        got: &Tree,
        held: (&[Object], &[Object]),
    ) -> Result<(), String> {
        self.compare_with(want, got, held, Self::times_and_identity)
    }

    /// The same for a tree whose inode numbers only say which names are one file.
    pub fn compare_disk(&mut self, want: &Tree, got: &Tree) -> Result<(), String> {
        self.compare_with(want, got, (&[], &[]), Self::times)
    }

    fn compare_with(
        &mut self,
        want: &Tree,
        got: &Tree,
        held: (&[Object], &[Object]),
        mut check: impl FnMut(&mut Self, &Object, &Object, &mut dyn FnMut(String)),
    ) -> Result<(), String> {
        let mut wrong = Vec::new();
        for at in got.keys().filter(|at| !want.contains_key(*at)) {
            wrong.push(format!("{:?} must not exist", show(at)));
        }
        let mut owners: BTreeMap<u64, (u64, &At)> = BTreeMap::new();
        for (at, want) in want {
            let Some(got) = got.get(at) else {
                wrong.push(format!("{:?} is missing", show(at)));
                continue;
            };
            let mut report = |what: String| wrong.push(format!("{:?}: {what}", show(at)));
            differences(want, got, self.leftovers, &mut report);
            check(self, want, got, &mut report);
            let owner = owners.entry(got.ino).or_insert((want.ino, at));
            if owner.0 != want.ino {
                report(format!(
                    "st_ino {} is also that of {:?}, another file",
                    got.ino,
                    show(owner.1)
                ));
            }
        }
        for (which, (want, got)) in held.0.iter().zip(held.1).enumerate() {
            let mut report = |what: String| wrong.push(format!("held {which}: {what}"));
            differences(want, got, self.leftovers, &mut report);
            check(self, want, got, &mut report);
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }

    fn times(&mut self, want: &Object, got: &Object, report: &mut dyn FnMut(String)) {
        let Some(known) = self.objects.get_mut(&want.ino) else {
            return report("the oracle has an object that was not noticed".to_owned());
        };
        match known.expect {
            Expect::Exactly(time) if got.mtime != time => {
                report(format!("mtime is {:?}, should be {time:?}", got.mtime));
            }
            Expect::Since(start) if got.mtime < start || got.mtime > (now().0 + 2, 0) => {
                report(format!(
                    "mtime is {:?}, should be set by an operation that began at {start:?}",
                    got.mtime
                ));
            }
            _ => known.expect = Expect::Exactly(got.mtime),
        }
    }

    fn times_and_identity(&mut self, want: &Object, got: &Object, report: &mut dyn FnMut(String)) {
        self.times(want, got, report);
        let Some(known) = self.objects.get_mut(&want.ino) else {
            return;
        };
        match known.ino {
            Some(before) if before != got.ino => {
                report(format!("st_ino is {}, it was {before}", got.ino));
            }
            _ => known.ino = Some(got.ino),
        }
    }
}

fn differences(want: &Object, got: &Object, leftovers: bool, report: &mut impl FnMut(String)) {
    let mut field = |name: &str, want: &dyn std::fmt::Display, got: &dyn std::fmt::Display| {
        report(format!("{name} is {got}, should be {want}"));
    };
    if want.kind != got.kind {
        field("type", &want.kind, &got.kind);
    }
    if want.mode != got.mode {
        field(
            "mode",
            &format!("{:o}", want.mode),
            &format!("{:o}", got.mode),
        );
    }
    if (want.uid, want.gid) != (got.uid, got.gid) {
        let show = |object: &Object| format!("{}:{}", object.uid, object.gid);
        field("owner", &show(want), &show(got));
    }
    // Of a directory that several layers have it is 1. Which ones that are the harness asks the
    // layers.
    let is_merged = got.nlink == 1;
    let has_leftover = leftovers && got.nlink == want.nlink + 1;
    let counted = want.kind == 'd' && want.nlink > 0 && (is_merged || has_leftover);
    if want.nlink != got.nlink && !counted {
        field("link count", &want.nlink, &got.nlink);
    }
    if matches!(want.kind, 'c' | 'b') && want.rdev != got.rdev {
        field("device", &want.rdev, &got.rdev);
    }
    // Removed directories are only a memory: they have no xattrs, and sizes of directories mean
    // nothing.
    if want.kind == 'd' && want.nlink == 0 {
        return;
    }
    if want.kind != 'd' && want.size != got.size {
        field("size", &want.size, &got.size);
    }
    if want.kind == '-' && got.blocks > want.blocks + BLOCK_SLACK {
        field("blocks", &want.blocks, &got.blocks);
    }
    if want.data != got.data {
        let at = want.data.iter().zip(&got.data).position(|(a, b)| a != b);
        report(format!(
            "bytes differ at {}: {:?} (of {}), should be {:?} (of {})",
            at.unwrap_or(want.data.len().min(got.data.len())),
            brief(&got.data, at),
            got.data.len(),
            brief(&want.data, at),
            want.data.len()
        ));
    }
    for (name, value) in &want.xattrs {
        match got.xattrs.get(name) {
            Some(got) if got == value => {}
            other => report(format!(
                "xattr {} is {other:?}, should be {value:?}",
                show(name)
            )),
        }
    }
    for name in got.xattrs.keys().filter(|n| !want.xattrs.contains_key(*n)) {
        report(format!("xattr {} should not be there", show(name)));
    }
}

fn brief(data: &[u8], at: Option<usize>) -> String {
    let from = at.unwrap_or(0).min(data.len());
    show(&data[from..(from + 8).min(data.len())])
}
