//! Trees on the disk: copying what a union shows, finding what a container changed, comparing two
//! trees.

mod changes;
mod compare;
mod copied;
mod copy;
mod find;
mod listing;
mod metadata;
mod pair;
mod whiteout_names;

pub(crate) use changes::{ChangeKind, changes};
pub(in crate::store) use compare::first_difference;
pub(in crate::store) use copied::{changed_size, changes_as_upper};
pub(in crate::store) use copy::{copy_root, copy_tree};
pub(in crate::store) use find::find_dir;

use crate::archive::Ownership;
use crate::union::config::StatOverrideForm;

/// The form in which owners are kept where this process cannot store them.
#[must_use]
pub(in crate::store) fn record_form() -> Option<StatOverrideForm> {
    match Ownership::possible() {
        Ownership::Real => None,
        Ownership::Recorded => Some(StatOverrideForm::User),
    }
}
