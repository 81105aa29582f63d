//! The operations, and how they are written in a regression test.

use std::fmt;

use super::stack::{At, Name, Time};

/// How renameat2(2) is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Replace,
    NoReplace,
    Exchange,
}

/// How fallocate(2) is called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Allocate,
    KeepSize,
    PunchHole,
    Zero,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    Create(u32),
    Mkdir(u32),
    Fifo(u32),
    Symlink(Vec<u8>),
    /// `to` becomes another name of `at`.
    Link,
    Unlink,
    Rmdir,
    Rename(Mode),
    /// Offset, length, seed.
    Write(u64, usize, u8),
    Append(usize, u8),
    Truncate(u64),
    Fallocate(Space, u64, u64),
    Fsync,
    Chmod(u32),
    Chown(Option<u32>, Option<u32>),
    /// `None`: the present.
    SetTime(Option<Time>),
    SetXattr(Name, Vec<u8>),
    RemoveXattr(Name),
    /// Opens a file or directory and keeps it open.
    Hold,
    /// Opens a file without a name (`O_TMPFILE`) and keeps it open.
    Unnamed(u32),
    /// The following ones work on something held: which, then what.
    HeldWrite(usize, u64, usize, u8),
    HeldTruncate(usize, u64),
    HeldChmod(usize, u32),
    HeldSetTime(usize, Time),
    HeldMkdir(usize, Name),
    /// It gets the name `to`.
    HeldLink(usize),
    Release(usize),
    /// Starts to list a directory.
    List,
    /// Lists some more of it.
    More(usize),
    /// All caches are dropped.
    Forget,
    Remount,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    pub what: Do,
    pub at: At,
    pub to: At,
}

impl Op {
    /// Whether `at` is a name that comes or goes, so that it cannot be the root.
    pub fn changes_name(&self) -> bool {
        matches!(
            self.what,
            Do::Create(_)
                | Do::Mkdir(_)
                | Do::Fifo(_)
                | Do::Symlink(_)
                | Do::Link
                | Do::Unlink
                | Do::Rmdir
                | Do::Rename(_)
        )
    }

    pub fn has_target(&self) -> bool {
        matches!(self.what, Do::Link | Do::Rename(_) | Do::HeldLink(_))
    }

    /// The name that would be made.
    pub fn makes(&self) -> Option<&[u8]> {
        match self.what {
            Do::Create(_) | Do::Mkdir(_) | Do::Fifo(_) | Do::Symlink(_) => Some(&self.at),
            Do::Link | Do::Rename(_) | Do::HeldLink(_) => Some(&self.to),
            _ => None,
        }
    }
}

/// As a byte string literal, shortened where a byte repeats: `long(b'x', 255)`.
pub fn literal(bytes: &[u8]) -> String {
    match bytes {
        [first, rest @ ..] if rest.len() > 20 && rest.iter().all(|byte| byte == first) => {
            format!("&long(b'{}', {})", first.escape_ascii(), bytes.len())
        }
        _ if bytes.len() > 60 => format!("/* {} bytes */ b\"{}\"", bytes.len(), show(bytes)),
        _ => format!("b\"{}\"", bytes.escape_ascii()),
    }
}

/// For messages: escaped, long runs shortened.
pub fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|byte| *byte == first).count();
        if run > 20 {
            text.push_str(&format!("<{} {}>", run, first.escape_ascii()));
            rest = &rest[run..];
        } else {
            text.push_str(&first.escape_ascii().to_string());
            rest = &rest[1..];
        }
    }
    text
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = literal(&self.at);
        match &self.what {
            Do::Create(mode) => write!(f, "create({at}, {mode:#o})"),
            Do::Mkdir(mode) => write!(f, "mkdir({at}, {mode:#o})"),
            Do::Fifo(mode) => write!(f, "fifo({at}, {mode:#o})"),
            Do::Symlink(target) => write!(f, "symlink({at}, {})", literal(target)),
            Do::Link => write!(f, "link({at}, {})", literal(&self.to)),
            Do::Unlink => write!(f, "unlink({at})"),
            Do::Rmdir => write!(f, "rmdir({at})"),
            Do::Rename(mode) => write!(f, "rename({at}, {}, Mode::{mode:?})", literal(&self.to)),
            Do::SetXattr(name, value) => {
                write!(f, "set_xattr({at}, {}, {})", literal(name), literal(value))
            }
            Do::RemoveXattr(name) => write!(f, "remove_xattr({at}, {})", literal(name)),
            Do::HeldLink(which) => write!(f, "held_link({which}, {})", literal(&self.to)),
            Do::HeldMkdir(which, name) => {
                write!(f, "op(Do::HeldMkdir({which}, {}.to_vec()))", literal(name))
            }
            Do::Fallocate(space, offset, len) => {
                write!(
                    f,
                    "on({at}, Do::Fallocate(Space::{space:?}, {offset}, {len}))"
                )
            }
            Do::HeldWrite(..)
            | Do::HeldTruncate(..)
            | Do::HeldChmod(..)
            | Do::HeldSetTime(..)
            | Do::Release(_)
            | Do::More(_)
            | Do::Forget
            | Do::Remount => write!(f, "op(Do::{:?})", self.what),
            what => write!(f, "on({at}, Do::{what:?})"),
        }
    }
}

/// An operation that needs no path.
pub fn op(what: Do) -> Op {
    on(b"", what)
}

/// An operation on one path.
pub fn on(at: impl AsRef<[u8]>, what: Do) -> Op {
    Op {
        what,
        at: at.as_ref().to_vec(),
        to: At::new(),
    }
}

pub fn create(at: impl AsRef<[u8]>, mode: u32) -> Op {
    on(at, Do::Create(mode))
}

pub fn mkdir(at: impl AsRef<[u8]>, mode: u32) -> Op {
    on(at, Do::Mkdir(mode))
}

pub fn fifo(at: impl AsRef<[u8]>, mode: u32) -> Op {
    on(at, Do::Fifo(mode))
}

pub fn symlink(at: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Op {
    on(at, Do::Symlink(target.as_ref().to_vec()))
}

pub fn unlink(at: impl AsRef<[u8]>) -> Op {
    on(at, Do::Unlink)
}

pub fn rmdir(at: impl AsRef<[u8]>) -> Op {
    on(at, Do::Rmdir)
}

pub fn link(at: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Op {
    Op {
        to: to.as_ref().to_vec(),
        ..on(at, Do::Link)
    }
}

pub fn held_link(which: usize, to: impl AsRef<[u8]>) -> Op {
    Op {
        to: to.as_ref().to_vec(),
        ..op(Do::HeldLink(which))
    }
}

pub fn rename(at: impl AsRef<[u8]>, to: impl AsRef<[u8]>, mode: Mode) -> Op {
    Op {
        to: to.as_ref().to_vec(),
        ..on(at, Do::Rename(mode))
    }
}

pub fn set_xattr(at: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    on(
        at,
        Do::SetXattr(name.as_ref().to_vec(), value.as_ref().to_vec()),
    )
}

pub fn remove_xattr(at: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> Op {
    on(at, Do::RemoveXattr(name.as_ref().to_vec()))
}

pub fn long(byte: u8, len: usize) -> Name {
    vec![byte; len]
}
