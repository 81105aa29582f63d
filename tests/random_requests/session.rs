//! One stream: from drafts to requests, what each answer must look like, and what must hold when
//! all is forgotten.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use unionmount::internal::fuse::Negotiated;
use unionmount::internal::fuse::Outcome;
use unionmount::internal::fuse::proto::split;
use unionmount::internal::fuse::proto::wire::fattr;
use unionmount::internal::fuse::proto::{Opcode, Operation, Request};
use unionmount::union::{Config, Union};

use crate::draft::{Case, Draft};
use crate::layers::Layers;
use support::client::{Client, op};

const ENTRY: usize = 128;
/// Larger sizes and offsets are left out, unless they are larger than any disk: no test is to
/// wait for them.
const MOST_BYTES: u64 = 1 << 20;
const ABSURD: u64 = 1 << 62;
/// Descriptors that may stay when everything is forgotten: of the root's directories.
const DESCRIPTORS: usize = 4;

static PANICS: AtomicU64 = AtomicU64::new(0);
thread_local! {
    static SERVING: Cell<bool> = const { Cell::new(false) };
}

/// What was done.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: u64,
    pub replies: u64,
    /// Opcodes that succeeded.
    pub kinds: BTreeSet<u32>,
}

impl Tally {
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.replies += other.replies;
        self.kinds.extend(other.kinds);
    }
}

/// A panic while a request is served is answered EIO, and would look like any other error: so it is
/// counted.
pub fn count_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if SERVING.try_with(Cell::get).unwrap_or(false) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        usual(info);
    }));
}

pub struct Session {
    pub client: Client,
    /// Lookups that the kernel would have counted.
    held: BTreeMap<u64, u64>,
    /// Every node that there ever was, also what was forgotten: all of them, directories, the rest.
    pub nodes: [Vec<u64>; 3],
}

impl Session {
    /// Serves a request and looks at the answer.
    fn serve(&mut self, request: &[u8], tally: &mut Tally) -> Result<(), String> {
        let long = self.client.server.long_setxattr();
        let Ok((header, arg, rest)) = split(request, long) else {
            return Ok(());
        };
        let parsed = Request::parse(header, arg, rest).map(|request| request.operation);
        if parsed.as_ref().is_ok_and(takes_long) {
            return Ok(());
        }
        let before = PANICS.load(Ordering::Relaxed);
        SERVING.set(true);
        let outcome = if self.client.unique & 2 == 0 {
            self.client.whole(request)
        } else {
            self.client.in_parts(request, 0xaa)
        };
        SERVING.set(false);
        if PANICS.load(Ordering::Relaxed) != before {
            return Err(format!("a panic in {parsed:?}"));
        }
        tally.requests += 1;
        let opcode = Opcode::from_number(header.opcode);
        let fits = match (&outcome, &parsed) {
            (Outcome::Silent, _) => opcode.is_some_and(Opcode::is_silent),
            (Outcome::Error(errno), _) => (1..512).contains(errno),
            (Outcome::Reply(_), Err(_)) => false,
            (Outcome::Reply(len), Ok(operation)) => self.fits(operation, *len),
        };
        if !fits {
            return Err(format!("{outcome:?} to {parsed:?}"));
        }
        if let Ok(operation) = parsed {
            self.count(&header.nodeid, &operation, outcome);
        }
        if !matches!(outcome, Outcome::Error(_)) {
            tally.replies += 1;
            tally.kinds.insert(header.opcode);
        }
        Ok(())
    }

    /// Whether a reply of this length can be one to the request.
    fn fits(&self, operation: &Operation<'_>, len: usize) -> bool {
        match operation {
            Operation::Lookup { .. }
            | Operation::Symlink { .. }
            | Operation::Mknod { .. }
            | Operation::Mkdir { .. }
            | Operation::Link { .. } => len == ENTRY,
            Operation::Create { .. } | Operation::Tmpfile { .. } => len == ENTRY + 16,
            Operation::Getattr | Operation::Setattr(_) => len == 104,
            Operation::Statx(_) => len == 288,
            Operation::Readlink => len <= 4096,
            Operation::Open(_) | Operation::Opendir(_) => len == 16,
            Operation::Read(arg) => len <= arg.size as usize,
            Operation::Readdir(arg) => {
                len <= arg.size as usize && self.entries(len, false).is_some()
            }
            Operation::Readdirplus(arg) => {
                len <= arg.size as usize && self.entries(len, true).is_some()
            }
            Operation::Write { arg, .. } => {
                len == 8 && self.client.number(0) == u64::from(arg.size)
            }
            Operation::Statfs => len == 80,
            Operation::Getxattr { size, .. } | Operation::Listxattr { size } => match size {
                0 => len == 8,
                size => len <= *size as usize,
            },
            Operation::Ioctl { arg, .. } => len >= 16 && len - 16 <= arg.out_size as usize,
            Operation::Lseek(_) | Operation::CopyFileRange { .. } => len == 8,
            _ => len == 0,
        }
    }

    /// The nodes and modes of a listing; `None` when it is not one.
    fn entries(&self, len: usize, plus: bool) -> Option<Vec<(u64, u32)>> {
        let (out, mut nodes, mut at) = (&self.client.out[..len], Vec::new(), 0);
        while at < len {
            if plus {
                nodes.push(entry(out.get(at..at + ENTRY)?));
                at += ENTRY;
            }
            let length = u32::from_ne_bytes(out.get(at + 16..at + 20)?.try_into().ok()?) as usize;
            let name = out.get(at + 24..at + 24 + length)?;
            if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                return None;
            }
            at += (24 + length).next_multiple_of(8);
        }
        (at == len).then_some(nodes)
    }

    fn forget(&mut self, node: u64, count: u64) {
        if let Some(held) = self.held.get_mut(&node) {
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.held.remove(&node);
            }
        }
    }

    /// Counts lookups as the kernel does.
    fn count(&mut self, node: &u64, operation: &Operation<'_>, outcome: Outcome) {
        let mut found = Vec::new();
        match (operation, outcome) {
            (Operation::Forget(arg), _) => self.forget(*node, arg.nlookup),
            (Operation::BatchForget(forgets), _) => {
                for one in forgets.iter() {
                    self.forget(one.nodeid, one.nlookup);
                }
            }
            (Operation::Readdirplus(_), Outcome::Reply(len)) => {
                found = self.entries(len, true).unwrap_or_default();
            }
            (
                Operation::Lookup { .. }
                | Operation::Symlink { .. }
                | Operation::Mknod { .. }
                | Operation::Mkdir { .. }
                | Operation::Link { .. }
                | Operation::Create { .. }
                | Operation::Tmpfile { .. },
                Outcome::Reply(_),
            ) => found.push(entry(&self.client.out[..ENTRY])),
            _ => {}
        }
        for (node, mode) in found.into_iter().filter(|(node, _)| *node > 1) {
            *self.held.entry(node).or_default() += 1;
            if !self.nodes[0].contains(&node) {
                let kind = if mode & 0o170_000 == 0o40_000 { 1 } else { 2 };
                self.nodes[0].push(node);
                self.nodes[kind].push(node);
            }
        }
    }
}

/// The node of an entry, and its mode.
fn entry(bytes: &[u8]) -> (u64, u32) {
    (
        u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
        u32::from_ne_bytes(bytes[100..104].try_into().unwrap()),
    )
}

/// Whether a request makes a disk write for long.
fn takes_long(operation: &Operation<'_>) -> bool {
    let long = |end: u64| (MOST_BYTES..ABSURD).contains(&end);
    match operation {
        Operation::Write { arg, .. } => long(arg.offset),
        Operation::Setattr(arg) => arg.valid & fattr::SIZE != 0 && long(arg.size),
        Operation::Fallocate(arg) => long(arg.offset) || long(arg.length),
        Operation::CopyFileRange { arg, .. } => long(arg.off_out),
        _ => false,
    }
}

/// Plays a stream of requests on fresh directories.
pub fn run(layers: &Layers, case: &Case, drafts: &[Draft]) -> Result<Tally, String> {
    let (upper, work) = layers.upper();
    let config = Config {
        lowers: vec![layers.at("new"), layers.at("old")],
        upper: Some(upper),
        work: Some(work),
        whiteout: case.whiteout,
        redirect_dir: case.redirect_dir,
        read_only: case.read_only,
        no_xattrs: case.no_xattrs,
        squash_uid: case.squash.then_some(0),
        squash_gid: case.squash.then_some(0),
        volatile: true,
        ..Config::default()
    };
    let agreed = Negotiated {
        zero_message_open: !case.opens,
        zero_message_opendir: !case.opens,
        keeps_cache: true,
        writeback: case.writeback,
        long_setxattr: case.long_setxattr,
        lifetime: Duration::from_secs(1),
        ..Negotiated::default()
    };
    let mut session = Session {
        client: Client::new(&config, agreed),
        held: BTreeMap::new(),
        nodes: [vec![1], vec![1], vec![]],
    };
    let mut tally = Tally::default();
    for draft in drafts {
        let request = session.request(draft);
        session.serve(&request, &mut tally)?;
    }
    let mut client = session.client;
    let known = client.union().inodes();
    if known != session.held.len() + 1 {
        return Err(format!(
            "{known} inodes are known, the kernel holds {}",
            session.held.len()
        ));
    }
    for (node, count) in session.held {
        client.ask(node, op::FORGET, &count.to_ne_bytes(), b"");
    }
    let (inodes, descriptors) = (client.union().inodes(), client.union().descriptors().0);
    if inodes != 1 || descriptors > DESCRIPTORS {
        return Err(format!(
            "{inodes} inodes and {descriptors} descriptors when all is forgotten"
        ));
    }
    drop(client);
    layers.check()?;
    // What is left on the disk is a union.
    match Union::open(&config) {
        Ok(_) => Ok(tally),
        Err(error) => Err(format!("cannot be opened again: {error}")),
    }
}
