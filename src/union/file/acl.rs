//! POSIX ACLs that no disk interprets: what a mode means for one, and what a new object inherits
//! (acl(5)).
//!
//! Needed where a layer keeps modes and ACLs in xattrs (`layer/stat_override.rs`); everywhere else
//! the upper's own file system does this. Values are in the form of `posix_acl_xattr.h`: a 32-bit
//! version, then entries of 16-bit tag, 16-bit permissions and 32-bit id, all little-endian.

const HEADER: usize = 4;
const ENTRY: usize = 8;
const VERSION: u32 = 2;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    perm: u16,
    id: u32,
}

pub(in crate::union) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub(in crate::union) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// An ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::union) struct Acl(Vec<AclEntry>);

impl Acl {
    /// Reads a value; `None` for one that is no complete ACL.
    pub(in crate::union) fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_at_checked(HEADER)?;
        let (entries, []) = entries.as_chunks::<ENTRY>() else {
            return None;
        };
        if version != VERSION.to_le_bytes() {
            return None;
        }
        let acl = Self(
            entries
                .iter()
                .map(|entry| AclEntry {
                    tag: u16::from_le_bytes([entry[0], entry[1]]),
                    perm: u16::from_le_bytes([entry[2], entry[3]]),
                    id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
                })
                .collect(),
        );
        let count = |tag| acl.0.iter().filter(|entry| entry.tag == tag).count();
        let complete = [USER_OBJ, GROUP_OBJ, OTHER]
            .iter()
            .all(|tag| count(*tag) == 1);
        let masked = count(MASK) == 1 || (count(MASK) == 0 && count(USER) + count(GROUP) == 0);
        let known = |entry: &AclEntry| {
            matches!(
                entry.tag,
                USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER
            ) && entry.perm <= 7
        };
        (complete && masked && acl.0.iter().all(known)).then_some(acl)
    }

    /// The value that [`Acl::parse`] reads.
    pub(in crate::union) fn value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.perm.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Whether it says no more than a mode does.
    pub(in crate::union) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The nine permission bits that go with it: the mask stands where the group's are.
    pub(super) fn perm(&self) -> u32 {
        let bits = |tag| {
            self.0
                .iter()
                .find(|entry| entry.tag == tag)
                .map(|entry| u32::from(entry.perm))
        };
        let group = bits(MASK).or_else(|| bits(GROUP_OBJ)).unwrap_or(0);
        bits(USER_OBJ).unwrap_or(0) << 6 | group << 3 | bits(OTHER).unwrap_or(0)
    }

    /// What it is after chmod(2).
    #[must_use]
    pub(super) fn with_perm(mut self, perm: u32) -> Self {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                MASK => 3,
                GROUP_OBJ if !masked => 3,
                OTHER => 0,
                _ => continue,
            };
            entry.perm = low_bits(perm >> shift);
        }
        self
    }

    /// What an object that is made with a mode inherits from a directory whose default ACL this is:
    /// its access ACL, and its permission bits, which are no more than the mode allows.
    #[must_use]
    pub(in crate::union) fn inherited(mut self, mode: u32) -> (Self, u32) {
        let masked = self.0.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                MASK => 3,
                GROUP_OBJ if !masked => 3,
                OTHER => 0,
                _ => continue,
            };
            entry.perm &= low_bits(mode >> shift);
        }
        let perm = (mode & !0o777) | self.perm();
        (self, perm)
    }
}

fn low_bits(bits: u32) -> u16 {
    u16::try_from(bits & 7).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NO_ID: u32 = u32::MAX;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries
            .iter()
            .map(|&(tag, perm, id)| AclEntry { tag, perm, id })
            .collect())
    }

    fn with_user() -> Acl {
        acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NO_ID),
            (MASK, 6, NO_ID),
            (OTHER, 1, NO_ID),
        ])
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let list = with_user();
        assert_eq!(Acl::parse(&list.value()), Some(list.clone()));
        assert!(!list.is_mode());
        assert_eq!(list.perm(), 0o761);
        let unmasked = acl(&[
            (USER_OBJ, 7, NO_ID),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NO_ID),
            (OTHER, 1, NO_ID),
        ]);
        let incomplete = acl(&[(USER_OBJ, 7, NO_ID)]);
        let odd = acl(&[
            (USER_OBJ, 8, NO_ID),
            (GROUP_OBJ, 5, NO_ID),
            (OTHER, 1, NO_ID),
        ]);
        for value in [
            unmasked.value(),
            incomplete.value(),
            odd.value(),
            vec![],
            vec![2, 0, 0, 0, 1],
            vec![1, 0, 0, 0],
        ] {
            assert_eq!(Acl::parse(&value), None);
        }
    }

    #[test]
    fn a_mode_changes_the_mask_and_not_the_group() {
        let changed = with_user().with_perm(0o640);
        assert_eq!(changed.perm(), 0o640);
        assert_eq!(changed.0[2].perm, 5);
        let plain = acl(&[
            (USER_OBJ, 7, NO_ID),
            (GROUP_OBJ, 5, NO_ID),
            (OTHER, 1, NO_ID),
        ]);
        assert!(plain.is_mode());
        assert_eq!(plain.with_perm(0o604).perm(), 0o604);
    }

    #[test]
    fn what_is_inherited_is_no_more_than_the_mode() {
        let (access, mode) = with_user().inherited(0o2644);
        assert_eq!((access.perm(), mode), (0o640, 0o2640));
        assert_eq!((access.0[1].perm, access.0[2].perm), (6, 5));
    }
}
