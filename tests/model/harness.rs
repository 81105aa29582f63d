//! Runs operations on a union and on the oracle side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::archive::Changes;
use super::build::{write_layer, write_merged};
use super::compare::{History, now};
use super::core::Core;
use super::disk::{fingerprint, no_needless_whiteout, same, work_is_empty};
use super::driver::{Driver, Piece, Subject};
use super::export::merged;
use super::mount::Mount;
use super::ops::{Do, Op, show};
use super::plain::Plain;
use super::random::{Case, Draft, common_names};
use super::stack::{At, Layer, Merged, Name, What, merge, split};
use super::tree::Tree;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backend {
    Core,
    Mount,
    /// The core; and what is in the upper at the end is written as an archive and applied
    /// elsewhere.
    Archive,
}

/// What to do, step by step.
#[derive(Clone, Copy)]
pub enum Script<'a> {
    Random(&'a [Draft]),
    Fixed(&'a [Op]),
}

/// What went wrong, and the operations up to there.
pub struct Failure {
    pub message: String,
    pub ops: Vec<Op>,
}

/// A listing under way.
struct Listing {
    /// The directory, by its inode number in the oracle.
    ino: u64,
    seen: BTreeMap<Name, usize>,
    /// Names that were there all the time.
    always: BTreeSet<Name>,
    /// Names that were there at some time, with the types that they had.
    ever: BTreeMap<Name, BTreeSet<char>>,
}

struct Bench<'a> {
    case: &'a Case,
    subject: Box<dyn Subject>,
    oracle: Plain,
    tree: Tree,
    history: History,
    listing: Option<Listing>,
    /// The link counts of directories, as they were seen, if nothing was done since.
    links: Option<BTreeMap<At, u64>>,
    /// The same by the layers.
    links_on_disk: Option<BTreeMap<At, u64>>,
    lowers: Vec<(PathBuf, Tree)>,
    layers: Vec<Layer>,
    backend: Backend,
    /// What the lowers show, when the upper began empty.
    below: Option<Merged>,
    upper: PathBuf,
    work: PathBuf,
    mounts: usize,
    /// `.wh.` names are ordinary: an empty upper was mounted with devices as whiteouts, which holds
    /// for ever.
    plain: bool,
}

/// Runs a script in a directory of its own. Gives the number of operations that were done.
pub fn run(case: &Case, script: Script<'_>, backend: Backend) -> Result<usize, Failure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut ops = Vec::new();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut bench = Bench::new(case, dir.path(), backend);
        bench.run(script, &mut ops)
    }));
    let message = match done {
        Ok(Ok(())) => return Ok(ops.len()),
        Ok(Err(message)) => message,
        Err(panic) => format!("panic: {:?}", panic.downcast_ref::<String>()),
    };
    Err(Failure { message, ops })
}

impl<'a> Bench<'a> {
    fn new(case: &'a Case, dir: &Path, backend: Backend) -> Self {
        let make = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let lowers: Vec<Layer> = case.lowers.iter().map(|items| Layer::new(items)).collect();
        let mut paths = Vec::new();
        for (i, layer) in lowers.iter().enumerate() {
            let path = make(&format!("lower{i}"));
            write_layer(&path, layer);
            paths.push(path);
        }
        let upper = make("upper");
        let top = Layer::new(&case.upper);
        write_layer(&upper, &top);
        let below = case.upper.is_empty().then(|| merge(&lowers));
        let stack: Vec<Layer> = [vec![top], lowers.clone()].concat();
        let plain = make("oracle");
        write_merged(&plain, &merge(&stack), &stack);
        let prints = paths.iter().map(|path| (path.clone(), fingerprint(path)));
        let (work, point) = (make("work"), make("mnt"));
        let items = case.lowers.iter().flatten().chain(&case.upper);
        let mut history = History::default();
        history.leftovers = items.into_iter().any(|item| item.what == What::Leftover);
        let absent = common_names();
        let subject: Box<dyn Subject> = match backend {
            Backend::Core | Backend::Archive => Box::new(Core::new(
                paths.clone(),
                upper.clone(),
                work.clone(),
                &absent,
            )),
            Backend::Mount => Box::new(Mount::new(
                paths.clone(),
                upper.clone(),
                work.clone(),
                point,
                &absent,
            )),
        };
        Self {
            case,
            subject,
            oracle: Plain::open(&plain, &[]),
            tree: Tree::new(),
            history,
            listing: None,
            links: None,
            links_on_disk: None,
            lowers: prints.collect(),
            layers: lowers,
            backend,
            below,
            upper,
            work,
            mounts: 0,
            plain: false,
        }
    }

    fn run(&mut self, script: Script<'_>, ops: &mut Vec<Op>) -> Result<(), String> {
        self.start()?;
        self.look((i64::MAX, 0));
        self.compare()
            .map_err(|e| format!("at the beginning: {e}"))?;
        let steps = match script {
            Script::Random(drafts) => drafts.len(),
            Script::Fixed(fixed) => fixed.len(),
        };
        for step in 0..steps {
            let op = match script {
                Script::Random(drafts) => drafts[step].resolve(&self.tree),
                Script::Fixed(fixed) => fixed[step].clone(),
            };
            ops.push(op.clone());
            let compared = (step + 1) % self.case.every == 0 || op.what == Do::Remount;
            self.step(&op, compared)
                .map_err(|e| format!("operation {step}, {op}: {e}"))?;
        }
        self.compare().map_err(|e| format!("at the end: {e}"))?;
        self.remount().map_err(|e| format!("last remount: {e}"))?;
        self.compare()
            .map_err(|e| format!("after the last remount: {e}"))?;
        self.subject.stop()?;
        self.check_disk()?;
        self.check_archive()
    }

    fn step(&mut self, op: &Op, compared: bool) -> Result<(), String> {
        let nameless = op.changes_name() && op.at.is_empty();
        if nameless || (op.has_target() && op.to.is_empty()) {
            return Ok(());
        }
        if self.subject.lacks(op) {
            return Ok(());
        }
        if op.what == Do::Remount && self.links.is_none() {
            self.compare()?;
        }
        let start = now();
        (self.links, self.links_on_disk) = match op.what {
            Do::Remount => (self.links.take(), None),
            _ => (None, None),
        };
        match op.what {
            Do::Remount => self.remount()?,
            Do::More(count) => self.list_more(count)?,
            Do::List => self.list(op)?,
            _ => self.both(op)?,
        }
        self.look(start);
        if compared { self.compare() } else { Ok(()) }
    }

    fn both(&mut self, op: &Op) -> Result<(), String> {
        let got = self.subject.apply(op);
        let reserved = op
            .makes()
            .and_then(split)
            .is_some_and(|(_, name)| name.starts_with(b".wh."));
        if reserved && !self.plain {
            // The one name that cannot be stored. (That something else is wrong too may be found
            // first.)
            return match got {
                Err(_) => Ok(()),
                Ok(()) => Err("a name that is a whiteout was accepted".to_owned()),
            };
        }
        let want = self.oracle.apply(op);
        if got != want {
            return Err(format!("answers {}, should be {}", said(got), said(want)));
        }
        Ok(())
    }

    /// Takes notice of what the operation did to the oracle.
    fn look(&mut self, start: (i64, u32)) {
        self.tree = self.oracle.snapshot().unwrap();
        let held = self.oracle.held().unwrap();
        self.history.observe(&self.tree, &held, start);
        let Some(listing) = &mut self.listing else {
            return;
        };
        let dir = self
            .tree
            .iter()
            .find(|(_, object)| object.ino == listing.ino);
        match dir {
            None => self.listing = None,
            Some((at, _)) => {
                let names = children(&self.tree, at);
                listing.always.retain(|name| names.contains_key(name));
                for (name, kind) in names {
                    listing.ever.entry(name).or_default().insert(kind);
                }
            }
        }
    }

    fn compare(&mut self) -> Result<(), String> {
        let got = self.subject.snapshot()?;
        let links = links_of(&got);
        if let Some(on_disk) = self.links_on_disk.take() {
            same_links(&on_disk, &links)?;
        }
        self.links = Some(links);
        let held = (self.oracle.held()?, self.subject.held()?);
        self.history.compare(&self.tree, &got, (&held.0, &held.1))
    }

    fn list(&mut self, op: &Op) -> Result<(), String> {
        self.both(op)?;
        self.listing = self
            .tree
            .get(&op.at)
            .filter(|object| object.kind == 'd')
            .map(|object| {
                let names = children(&self.tree, &op.at);
                Listing {
                    ino: object.ino,
                    seen: BTreeMap::new(),
                    always: names.keys().cloned().collect(),
                    ever: names
                        .into_iter()
                        .map(|(name, kind)| (name, [kind].into()))
                        .collect(),
                }
            });
        Ok(())
    }

    fn list_more(&mut self, count: usize) -> Result<(), String> {
        let Some(listing) = &mut self.listing else {
            return Ok(());
        };
        let pieces = self
            .subject
            .more(count)
            .map_err(|e| format!("listing: {e}"))?;
        for Piece { name, kind } in &pieces {
            if name == b"." || name == b".." {
                continue;
            }
            if !listing
                .ever
                .get(name)
                .is_some_and(|kinds| kinds.contains(kind))
            {
                return Err(format!(
                    "{:?} was listed and never there, type {kind}",
                    show(name)
                ));
            }
            *listing.seen.entry(name.clone()).or_default() += 1;
        }
        if !pieces.is_empty() {
            return Ok(());
        }
        for name in &listing.always {
            match listing.seen.get(name) {
                Some(1) => {}
                None => return Err(format!("{:?} was not listed", show(name))),
                Some(times) => return Err(format!("{:?} was listed {times} times", show(name))),
            }
        }
        self.listing = None;
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        let form = self.case.forms[self.mounts % self.case.forms.len()];
        self.mounts += 1;
        let empty = std::fs::read_dir(&self.upper).unwrap().next().is_none();
        self.plain |= form.char_marks && empty;
        self.subject.start(form)
    }

    fn remount(&mut self) -> Result<(), String> {
        self.oracle.release_all();
        self.subject.release_all();
        self.listing = None;
        self.subject.stop()?;
        self.check_disk()?;
        self.start()
    }

    fn check_archive(&mut self) -> Result<(), String> {
        if self.backend != Backend::Archive {
            return Ok(());
        }
        let lowers: Vec<PathBuf> = self.lowers.iter().map(|(path, _)| path.clone()).collect();
        Changes {
            redirects: self.case.forms.iter().any(|form| form.redirect),
            upper: &self.upper,
            lowers: &lowers,
            layers: &self.layers,
            tree: &self.tree,
            history: &mut self.history,
        }
        .check()
    }

    fn check_disk(&mut self) -> Result<(), String> {
        for (path, print) in &self.lowers {
            same(print, path)?;
        }
        work_is_empty(&self.work)?;
        if self.case.forms.iter().any(|form| form.redirect) {
            return Ok(());
        }
        if let Some(below) = &self.below {
            no_needless_whiteout(&self.upper, b"", Some(below), self.plain)?;
        }
        let lowers = self.lowers.iter().map(|(path, _)| path.clone());
        let layers: Vec<PathBuf> = std::iter::once(self.upper.clone()).chain(lowers).collect();
        let exported = merged(&layers, self.plain)?;
        let on_disk = links_of(&exported);
        if let Some(links) = self.links.take() {
            same_links(&on_disk, &links)?;
        }
        self.links_on_disk = Some(on_disk);
        self.history
            .compare_disk(&self.tree, &exported)
            .map_err(|e| format!("the layers as another reader sees them: {e}"))
    }
}

fn said(answer: Result<(), Errno>) -> String {
    match answer {
        Ok(()) => "success".to_owned(),
        Err(errno) => format!("{errno}"),
    }
}

/// The names in a directory, with their types.
fn children(tree: &Tree, at: &[u8]) -> BTreeMap<Name, char> {
    tree.iter()
        .filter_map(|(path, object)| Some((split(path)?, object.kind)))
        .filter(|((dir, _), _)| *dir == at)
        .map(|((_, name), kind)| (name.to_vec(), kind))
        .collect()
}

/// The link counts of directories.
fn links_of(tree: &Tree) -> BTreeMap<At, u64> {
    let dirs = tree.iter().filter(|(_, object)| object.kind == 'd');
    dirs.map(|(at, dir)| (at.clone(), dir.nlink)).collect()
}

/// Whether directories have the link counts that their layers give them. What else is wrong with
/// the trees is said elsewhere.
fn same_links(on_disk: &BTreeMap<At, u64>, seen: &BTreeMap<At, u64>) -> Result<(), String> {
    for (at, links) in on_disk {
        if let Some(seen) = seen.get(at).filter(|seen| *seen != links) {
            return Err(format!(
                "{:?}: link count is {seen}, by its layers it is {links}",
                show(at)
            ));
        }
    }
    Ok(())
}
