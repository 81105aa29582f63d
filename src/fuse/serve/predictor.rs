//! Predicts whether programs that read directories will want the attributes of what is in them.
//!
//! The kernel asks for the beginning of a directory with attributes (READDIRPLUS), whatever program
//! reads it. They are worth a system call for each entry to a program that looks at them next, as
//! tar(1) and `ls -l` do: each saves a LOOKUP. To one that looks at names alone, as find(1) does,
//! they are worth nothing, and on a cold disk they are most of what a listing costs.
//!
//! No request says which it will be, but most programs that read a tree do the same in each
//! directory. So a directory is listed without the attributes of its files, and when names of it
//! are looked up then, the next ones are listed with them, until it is time to see whether that is
//! still wanted. The kernel takes an entry without a node for a name alone. Directories always come
//! with attributes: they are what is entered next.

use std::sync::Mutex;

use crate::sync::lock;
use crate::union::NodeId;

/// How many directories that were listed without attributes are remembered.
const LISTED: usize = 64;
/// How many names of one must be looked up before attributes are wanted: one may have been asked
/// for by its name.
const ENOUGH: u8 = 2;
/// How many directories are listed with attributes before the next look whether they are wanted: at
/// first, and at most when it always turned out that they were.
const FEWEST: u32 = 64;
const MOST: u32 = 4096;

/// Predicts from the lookups that were seen.
#[derive(Debug)]
pub(super) struct ReaddirplusPredictor {
    /// Lock order: no other lock is taken while it is held.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Directories that were listed without attributes, and how many of their names were looked up
    /// since; by node id.
    listed: [(u64, u8); LISTED],
    /// How many directories more are listed with attributes.
    left: u32,
    /// How many there were the last time.
    granted: u32,
}

impl Default for ReaddirplusPredictor {
    fn default() -> Self {
        Self {
            seen: Mutex::new(Seen {
                listed: [(0, 0); LISTED],
                left: 0,
                granted: 0,
            }),
        }
    }
}

fn slot(node: u64) -> usize {
    usize::try_from(node % LISTED as u64).unwrap_or(0)
}

impl ReaddirplusPredictor {
    /// Whether the files of a directory are to be listed with their attributes. Behind its
    /// beginning the kernel asks for them only when it has seen that they are wanted.
    pub(super) fn wants_attributes(&self, directory: NodeId, offset: u64) -> bool {
        if offset != 0 {
            return true;
        }
        let mut seen = lock(&self.seen);
        if seen.left > 0 {
            seen.left -= 1;
            return true;
        }
        seen.listed[slot(directory.0)] = (directory.0, 0);
        false
    }

    /// A file was looked up in a directory.
    pub(super) fn looked_up(&self, directory: NodeId) {
        let mut seen = lock(&self.seen);
        let (listed, names) = &mut seen.listed[slot(directory.0)];
        if *listed != directory.0 {
            return;
        }
        *names += 1;
        if *names == ENOUGH {
            *listed = 0;
            seen.granted = (seen.granted * 2).clamp(FEWEST, MOST);
            seen.left = seen.granted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: NodeId = NodeId(7);

    #[test]
    fn readers_of_names_alone_get_names_alone() {
        let predictor = ReaddirplusPredictor::default();
        for node in 1..1000 {
            assert!(!predictor.wants_attributes(NodeId(node), 0));
        }
        // One name, or names of a directory that was not listed, say nothing.
        predictor.looked_up(NodeId(999));
        predictor.looked_up(NodeId(5));
        predictor.looked_up(NodeId(5));
        assert!(!predictor.wants_attributes(DIR, 0));
    }

    #[test]
    fn readers_of_attributes_get_them_in_the_next_directories() {
        let predictor = ReaddirplusPredictor::default();
        let run = || {
            assert!(!predictor.wants_attributes(DIR, 0));
            predictor.looked_up(DIR);
            predictor.looked_up(DIR);
            (0..2 * MOST)
                .take_while(|_| predictor.wants_attributes(DIR, 0))
                .count()
        };
        assert_eq!([run(), run(), run()], [64, 128, 256]);
        for _ in 0..10 {
            run();
        }
        assert_eq!(run(), 4096);
    }

    #[test]
    fn behind_the_beginning_the_kernel_decides() {
        assert!(ReaddirplusPredictor::default().wants_attributes(DIR, 17));
    }
}
