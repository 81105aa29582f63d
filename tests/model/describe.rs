//! Stacks and cases written by hand.

use super::driver::Form;
use super::harness::{Backend, Script, run};
use super::mount;
use super::ops::Op;
use super::random::Case;
use super::stack::{Item, Leaf, Meta, Opaque, What, White};

/// A stack under construction, newest lower first.
pub struct Stack(Case);

impl Stack {
    pub fn new() -> Self {
        Self(Case {
            lowers: Vec::new(),
            upper: Vec::new(),
            forms: Vec::new(),
            every: 1,
        })
    }

    pub fn lower(mut self, items: Vec<Item>) -> Self {
        self.0.lowers.push(items);
        self
    }

    /// What is in the upper before the first mount.
    pub fn upper(mut self, items: Vec<Item>) -> Self {
        self.0.upper = items;
        self
    }

    /// One mount's form: words out of `char`, `redirect`, `sync`, `cold`, `plus`.
    pub fn form(mut self, words: &[&str]) -> Self {
        self.0.forms.push(Form {
            char_marks: words.contains(&"char"),
            redirect: words.contains(&"redirect"),
            sync: words.contains(&"sync"),
            cold: words.contains(&"cold"),
            plus: words.contains(&"plus"),
        });
        self
    }

    /// Compare only after so many operations.
    pub fn every(mut self, operations: usize) -> Self {
        self.0.every = operations;
        self
    }
}

/// Runs operations on the core and, where there can be one, on a mount. A stack without a form is
/// run in all four combinations of whiteout form and redirects.
pub fn check(stack: Stack, ops: &[Op]) {
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut case = stack.0;
    let all = [&[][..], &["char"], &["redirect"], &["char", "redirect"]];
    let forms: Vec<Vec<Form>> = if case.forms.is_empty() {
        let with = |words: &[&str]| Stack::new().form(words).0.forms;
        all.iter().map(|words| with(words)).collect()
    } else {
        vec![case.forms.clone()]
    };
    let mut backends = vec![Backend::Core];
    match mount::missing() {
        None => {
            mount::separate();
            backends.push(Backend::Mount);
        }
        Some(why) => support::skip(&why),
    }
    for forms in forms {
        case.forms = forms;
        for backend in &backends {
            if let Err(failure) = run(&case, Script::Fixed(ops), *backend) {
                panic!("{backend:?} {:?}: {}", case.forms, failure.message);
            }
        }
    }
}

impl Item {
    pub fn mode(mut self, mode: u32) -> Self {
        self.meta.mode = Some(mode);
        self
    }

    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.meta.owner = (uid, gid);
        self
    }

    pub fn mtime(mut self, secs: i64, nanos: u32) -> Self {
        self.meta.mtime = (secs, nanos);
        self
    }

    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let pair = (name.as_ref().to_vec(), value.as_ref().to_vec());
        self.meta.xattrs.push(pair);
        self
    }
}

fn item(at: impl AsRef<[u8]>, what: What) -> Item {
    Item {
        at: at.as_ref().to_vec(),
        what,
        meta: Meta::default(),
    }
}

pub fn dir(at: impl AsRef<[u8]>) -> Item {
    item(at, What::Dir)
}

pub fn leaf(at: impl AsRef<[u8]>, leaf: Leaf) -> Item {
    item(at, What::Leaf(leaf))
}

/// A small file.
pub fn file(at: impl AsRef<[u8]>) -> Item {
    leaf(
        at,
        Leaf::File {
            len: 10,
            sparse: false,
            seed: 1,
        },
    )
}

/// A symlink of a layer.
pub fn sym(at: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Item {
    leaf(at, Leaf::Symlink(target.as_ref().to_vec()))
}

pub fn hard_link(at: impl AsRef<[u8]>, of: impl AsRef<[u8]>) -> Item {
    item(at, What::Link(of.as_ref().to_vec()))
}

pub fn white(at: impl AsRef<[u8]>, form: White) -> Item {
    item(at, What::White(form))
}

pub fn opaque(at: impl AsRef<[u8]>, form: Opaque) -> Item {
    item(at, What::Opaque(form))
}

pub fn leftover(at: impl AsRef<[u8]>) -> Item {
    item(at, What::Leftover)
}
