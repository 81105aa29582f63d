//! Devices of the merged view that the upper has as files.

use crate::layer::marks::DEVICE_XATTR;
use crate::layer::object::WritableObject;
use crate::union::error::{Context, Result};
use crate::union::work::writable::Writable;
use crate::union::{Union, fail};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

const OWNER_READS: u32 = 0o400;
const OWNER_READS_AND_WRITES: u32 = 0o600;

impl Union {
    /// Makes an empty file of the upper a device 0/0 of the merged view. Errors: EPERM where it
    /// cannot be remembered.
    pub(in crate::union) fn make_device(
        &self,
        writable: &Writable,
        object: &WritableObject,
    ) -> Result<()> {
        let Some(prefix) = writable
            .abilities
            .own_xattrs
            .filter(|_| !self.rules.no_xattrs)
        else {
            return fail(Errno::PERM);
        };
        let xattr = format!("{prefix}{DEVICE_XATTR}");
        let set = || object.set_xattr(xattr.as_bytes(), b"0:0", XattrFlags::empty());
        let set = match set() {
            // An ordinary user's `user.` xattrs go by the mode of the file: this one has to be
            // readable for the daemon.
            Err(Errno::ACCESS) => object.stat().and_then(|stat| {
                object.chmod(stat.perm() | OWNER_READS_AND_WRITES)?;
                set()?;
                object.chmod(stat.perm() | OWNER_READS)
            }),
            other => other,
        };
        set.context("setxattr", xattr.as_bytes())
    }
}
