//! What only a writable union has.

use crate::union::{Keeping, Stage, UpperAbilities};

/// What only a writable union has.
#[derive(Debug)]
pub(in crate::union) struct Writable {
    pub(in crate::union) stage: Stage,
    pub(in crate::union) abilities: UpperAbilities,
    /// Whiteouts are 0/0 devices and opaque marks are xattrs, else `.wh.` files.
    pub(in crate::union) char_marks: bool,
    /// How the upper keeps xattrs that mean something to disks.
    pub(in crate::union) keeping: Keeping,
}
