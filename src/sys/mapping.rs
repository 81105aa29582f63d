//! Anonymous memory that the kernel writes to while no Rust reference looks at it.

use std::io;
use std::ptr::{self, NonNull};

/// Bytes of the smallest page that Linux has; larger ones are rounded to by the kernel.
const PAGE: usize = 4096;

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
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other
        // memory.
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
        // SAFETY: advice about memory that is ours; kernels without huge pages refuse it, which
        // changes nothing.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE) };
        Ok(Self { start, len })
    }

    /// The first byte. Valid for `len` bytes as long as the value lives, or for ever after
    /// [`Mapping::leak`].
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Releases the memory from `offset` on: it is zeroed, and costs nothing until it is touched
    /// again. No reference may be using it. `offset` is rounded up to a page.
    pub(super) fn release(&mut self, offset: usize) {
        let offset = offset.next_multiple_of(PAGE);
        if let Some(len) = self.len.checked_sub(offset).filter(|len| *len > 0) {
            // SAFETY: the range lies in the mapping, which is ours alone. Failing leaves the memory
            // as it is.
            unsafe {
                libc::madvise(
                    self.start.as_ptr().add(offset).cast(),
                    len,
                    libc::MADV_DONTNEED,
                );
            }
        }
    }

    /// Never unmaps the memory: for when the kernel may still write to it.
    pub(super) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and the users of the pointer promised not to use
        // it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Zeroed bytes that begin at a page, and can be released to the system.
#[derive(Debug)]
pub(crate) struct Buffer(Mapping);

impl Buffer {
    /// `len` bytes, more than none. What is never touched takes no memory.
    ///
    /// # Errors
    /// ENOMEM, EINVAL for a length of 0.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        Mapping::new(len).map(Self)
    }

    /// The bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is initialised (zeroed by mmap), `len` bytes long, and borrowed as
        // long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.len) }
    }

    /// Releases the memory: all bytes are zero again.
    pub(crate) fn release(&mut self) {
        self.0.release(0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_released_is_zero_and_can_be_used_again() {
        let mut buffer = Buffer::new(10_000).unwrap();
        buffer.bytes().fill(7);
        buffer.release();
        assert!(buffer.bytes().iter().all(|byte| *byte == 0));
        buffer.bytes()[9_999] = 1;
        assert_eq!(buffer.bytes().len(), 10_000);
        assert!(Buffer::new(0).is_err());
    }
}
