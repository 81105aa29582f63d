//! Times of a directory, as they are put back after its marks were rewritten.

use rustix::fs::XattrFlags;

use crate::layer::WritableDir;
use crate::layer::object::SetTime;
use crate::layer::stat::Time;

/// The times that a directory gets back.
pub(super) struct Times {
    atime: Time,
    mtime: Time,
    /// They are from before a conversion that was interrupted.
    pub(super) interrupted: bool,
}

impl Times {
    /// Returns the times of a directory before it is changed: those that an interrupted conversion
    /// stored in `xattr`, or those that it has. With `store` the latter are stored there for a
    /// conversion that follows; that this fails is logged.
    pub(super) fn before(dir: &WritableDir, xattr: &[u8], store: bool) -> rustix::io::Result<Self> {
        let stored = dir.xattrs()?.get_opt(xattr)?;
        if let Some(times) = stored.as_deref().and_then(Self::parse) {
            return Ok(times);
        }
        let stat = dir.stat()?;
        let times = Self {
            atime: stat.atime,
            mtime: stat.mtime,
            interrupted: false,
        };
        if store {
            let set = dir
                .this()?
                .set_xattr(xattr, &times.value(), XattrFlags::empty());
            if let Err(errno) = set {
                log::debug!("the times of a directory are not stored: {errno}");
            }
        }
        Ok(times)
    }

    /// Sets them.
    pub(super) fn restore(&self, dir: &WritableDir) -> rustix::io::Result<()> {
        let (atime, mtime) = (SetTime::At(self.atime), SetTime::At(self.mtime));
        dir.this()?.utimens(atime, mtime)
    }

    fn value(&self) -> Vec<u8> {
        let Self { atime, mtime, .. } = self;
        format!(
            "{}.{}:{}.{}",
            atime.secs, atime.nanos, mtime.secs, mtime.nanos
        )
        .into_bytes()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let time = |text: &str| {
            let (secs, nanos) = text.split_once('.')?;
            Some(Time {
                secs: secs.parse().ok()?,
                nanos: nanos.parse().ok()?,
            })
        };
        let (atime, mtime) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self {
            atime: time(atime)?,
            mtime: time(mtime)?,
            interrupted: true,
        })
    }
}
