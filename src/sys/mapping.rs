//! Anonymous memory that the kernel writes to while no Rust reference looks at it.

use std::io;
use std::ptr::{self, NonNull};

/// Zeroed, page-aligned memory. Untouched pages cost nothing.
///
/// It hands out a raw pointer only: who may read and write when is the owner's business.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to the value and to no thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// `len` bytes, more than none.
    ///
    /// # Errors
    /// Those of mmap(2): ENOMEM, EINVAL for a length of 0.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // Neighbouring mappings merge; a huge page would then make one touched byte cost 2 MiB.
        // SAFETY: advice about memory that is ours; kernels without huge pages refuse it, which changes nothing.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(Self { start, len })
    }

    /// The first byte. Valid for `len` bytes as long as the value lives, or for ever after [`Mapping::leak`].
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Never unmaps the memory: for when the kernel may still write to it.
    pub(super) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and whoever got the pointer promised not to use it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
