//! Listings that the kernel must not keep.
//!
//! The kernel keeps a listing in pages: its entries one behind the other, none of them in two pages
//! (`fuse_add_dirent_to_cache` in `fs/fuse/readdir.c`). A reader who is in the middle of it looks
//! for its position there; when the entry that it is the position of was removed meanwhile, the
//! kernel asks the daemon, but not where the last entry ends with a page: there
//! `fuse_readdir_cached` takes the end of the last page for the end of the directory, and the
//! reader misses all that is left.
//!
//! A listing is kept once a reply is empty. One of fewer bytes than an entry has ends it as well,
//! and nothing is kept: about one directory in a hundred is listed by the daemon each time.

use crate::fuse::proto::wire::Dirent;
use crate::union::{NodeId, Result, Union};

/// The reply that ends a listing without the kernel keeping it.
pub(super) const END_NOT_KEPT: u64 = 0;
const _: () = assert!(size_of_val(&END_NOT_KEPT) < size_of::<Dirent>());

/// Where the kernel puts the next entry of a listing.
struct Pages {
    page: usize,
    /// Bytes of the last page that are taken.
    used: usize,
}

impl Pages {
    fn new(page: usize) -> Self {
        Self { page, used: 0 }
    }

    fn add(&mut self, name: &[u8]) {
        let size = (size_of::<Dirent>() + name.len()).next_multiple_of(align_of::<u64>());
        let begin = if self.used + size > self.page {
            0
        } else {
            self.used
        };
        self.used = begin + size;
    }

    fn ends_with_page(&self) -> bool {
        self.used == self.page
    }
}

/// Whether the last entry of a directory's listing ends with a page of the kernel's.
pub(super) fn ends_with_page(union: &Union, node: NodeId) -> Result<bool> {
    let mut pages = Pages::new(rustix::param::page_size());
    union.list_names(node, |name| pages.add(name))?;
    Ok(pages.ends_with_page())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fills(sizes: &[usize]) -> bool {
        let mut pages = Pages::new(4096);
        sizes.iter().for_each(|size| pages.add(&vec![b'x'; *size]));
        pages.ends_with_page()
    }

    #[test]
    fn names_of_up_to_eight_bytes_are_128_to_a_page() {
        assert!(fills(&[8; 128]));
        assert!(fills(&[1; 256]));
        assert!(!fills(&[8; 127]));
        assert!(!fills(&[8; 129]));
    }

    #[test]
    fn an_entry_that_does_not_fit_begins_a_page() {
        // 14 entries of 280 bytes leave 176 bytes, which the next one does not fit in.
        assert!(fills(&[&[255; 14][..], &[152]].concat()));
        assert!(!fills(&[&[255; 15][..], &[152]].concat()));
        // 280 and 3816 bytes on the second page.
        assert!(fills(&[&[255; 15][..], &[8; 118], &[16]].concat()));
    }

    #[test]
    fn nothing_ends_with_no_page() {
        assert!(!fills(&[]));
    }
}
