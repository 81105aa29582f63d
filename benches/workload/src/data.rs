//! Work on the bytes of files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use crate::{Outcome, PAGE, numbers, timed};

const CHUNK: usize = 128 << 10;
const PAGE_LEN: usize = 4096;

pub(crate) fn sequential_read(file: &str) -> Outcome<f64> {
    let mut buffer = vec![0; CHUNK];
    timed(|| {
        let mut file = File::open(file)?;
        while file.read(&mut buffer)? != 0 {}
        Ok(())
    })
}

pub(crate) fn random_read(file: &str, n: u64) -> Outcome<f64> {
    let mut buffer = [0; PAGE_LEN];
    let file = File::open(file)?;
    let pages = file.metadata()?.len() / PAGE;
    let mut random = numbers();
    timed(|| {
        for _ in 0..n {
            file.read_exact_at(&mut buffer, random.u64(..pages.max(1)) * PAGE)?;
        }
        Ok(())
    })
}

pub(crate) fn random_write(file: &str, n: u64) -> Outcome<f64> {
    let buffer = [b'w'; PAGE_LEN];
    let file = OpenOptions::new().write(true).open(file)?;
    let pages = file.metadata()?.len() / PAGE;
    let mut random = numbers();
    timed(|| {
        for _ in 0..n {
            file.write_all_at(&buffer, random.u64(..pages.max(1)) * PAGE)?;
        }
        file.sync_all()?;
        Ok(())
    })
}

pub(crate) fn sequential_write(file: &str, mib: u64) -> Outcome<f64> {
    let buffer = vec![b's'; CHUNK];
    timed(|| {
        let mut file = File::create_new(file)?;
        for _ in 0..mib * 8 {
            file.write_all(&buffer)?;
        }
        file.sync_all()?;
        Ok(())
    })
}

pub(crate) fn fsyncs(file: &str, n: u64) -> Outcome<f64> {
    let mut file = File::create_new(file)?;
    timed(|| {
        for _ in 0..n {
            file.write_all(&[b'f'; PAGE_LEN])?;
            file.sync_all()?;
        }
        Ok(())
    })
}

pub(crate) fn first_write(file: &str) -> Outcome<f64> {
    let middle = fs::metadata(file)?.len() / 2;
    timed(|| {
        let file = OpenOptions::new().write(true).open(file)?;
        file.write_all_at(&[b'x'; PAGE_LEN], middle)?;
        Ok(())
    })
}

pub(crate) fn mapped_read(file: &str) -> Outcome<f64> {
    let file = File::open(file)?;
    let len = usize::try_from(file.metadata()?.len())?;
    timed(|| {
        let sum = mapping::touch_every_page(&file, len)?;
        std::hint::black_box(sum);
        Ok(())
    })
}

/// A mapping needs two calls that the standard library does not offer, and a
/// crate would keep this program from being built by `rustc` alone.
mod mapping {
    #![allow(unsafe_code)]

    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn mmap(
            addr: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(addr: *mut c_void, len: usize) -> c_int;
    }

    const PROT_READ: c_int = 1;
    const MAP_SHARED: c_int = 1;

    /// Maps `len` bytes of `file` and reads one byte of each page.
    pub(crate) fn touch_every_page(file: &File, len: usize) -> io::Result<u64> {
        // SAFETY: a new shared read-only mapping at an address of the kernel's
        // choice touches no memory of this program.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                PROT_READ,
                MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let mut sum = 0;
        for offset in (0..len).step_by(super::PAGE_LEN) {
            // SAFETY: `offset` is below `len`, which is all mapped until the
            // munmap below; the file is not shortened meanwhile.
            sum += u64::from(unsafe { start.cast::<u8>().add(offset).read_volatile() });
        }
        // SAFETY: exactly the mapping made above, no reference into it is left.
        if unsafe { munmap(start, len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(sum)
    }
}
