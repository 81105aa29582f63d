//! What is tested, seen from the harness.

use rustix::io::Errno;

use super::ops::Op;
use super::stack::Name;
use super::tree::{Object, Tree};

/// One entry of a listing that is read in pieces.
#[derive(Clone, Debug)]
pub struct Piece {
    pub name: Name,
    pub kind: char,
}

/// A tree that operations can be done on.
pub trait Driver {
    fn apply(&mut self, op: &Op) -> Result<(), Errno>;

    /// The next entries of the directory that `Do::List` opened; none at its end.
    fn more(&mut self, count: usize) -> Result<Vec<Piece>, Errno>;

    fn snapshot(&mut self) -> Result<Tree, String>;

    /// What is held open, in order.
    fn held(&mut self) -> Result<Vec<Object>, String>;

    /// Lets go of everything that is held or listed.
    fn release_all(&mut self);
}

/// A union in one of its embodiments.
pub trait Subject: Driver {
    /// Whether it is known to be unable to do this.
    fn lacks(&self, _op: &Op) -> bool {
        false
    }

    /// Ends it.
    fn stop(&mut self) -> Result<(), String>;

    /// Opens it (again) on the same directories.
    fn start(&mut self, form: Form) -> Result<(), String>;
}

/// How a union is configured, as far as it may differ between two mounts of one upper.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Form {
    /// Whiteouts are 0/0 devices.
    pub char_marks: bool,
    pub redirect: bool,
    /// Unless it is volatile, every copy-up syncs the disk.
    pub sync: bool,
    /// Everything is forgotten after each operation, so that each starts cold.
    pub cold: bool,
    /// Directories are read by readdirplus.
    pub plus: bool,
}
