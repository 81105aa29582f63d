//! Owners as stored on disk and as seen through the mount.

use crate::union::config::{Config, IdRange};

/// What an id without a mapping is seen as, and what the owner is stored as whose id has no place
/// on the disk (`/proc/sys/kernel/overflowuid`).
pub(super) const OVERFLOW_ID: u32 = 65534;

/// No user and no group: chown(2) takes it for "leave as it is", so that it must never get there.
const NO_ID: u32 = u32::MAX;

/// One direction pair of mappings, for users or for groups.
#[derive(Clone, Debug, Default)]
struct Map {
    ranges: Vec<IdRange>,
    squash: Option<u32>,
}

impl Map {
    fn seen(&self, disk: u32) -> u32 {
        if let Some(id) = self.squash {
            return id;
        }
        if self.ranges.is_empty() {
            return disk;
        }
        translate(&self.ranges, disk, |r| (r.disk, r.seen)).unwrap_or(OVERFLOW_ID)
    }

    fn disk(&self, seen: u32) -> Option<u32> {
        let seen = self.squash.unwrap_or(seen);
        if seen == NO_ID {
            return None;
        }
        translate_or_same(&self.ranges, seen).filter(|id| *id != NO_ID)
    }

    fn is_identity(&self) -> bool {
        self.ranges.is_empty() && self.squash.is_none()
    }
}

fn translate_or_same(ranges: &[IdRange], seen: u32) -> Option<u32> {
    if ranges.is_empty() {
        return Some(seen);
    }
    translate(ranges, seen, |r| (r.seen, r.disk))
}

fn translate(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let (from, to) = ends(range);
        let offset = id.checked_sub(from)?;
        if offset < range.len {
            to.checked_add(offset)
        } else {
            None
        }
    })
}

/// The mappings of a union.
#[derive(Clone, Debug, Default)]
pub(in crate::union) struct IdMaps {
    users: Map,
    groups: Map,
}

impl IdMaps {
    /// The mappings that a configuration asks for.
    #[must_use]
    pub(in crate::union) fn new(config: &Config) -> Self {
        Self {
            users: Map {
                ranges: config.uid_map.clone(),
                squash: config.squash_uid,
            },
            groups: Map {
                ranges: config.gid_map.clone(),
                squash: config.squash_gid,
            },
        }
    }

    /// What remains of the mappings where ids are what they are: all owners may be made one.
    #[must_use]
    pub(in crate::union) fn squash_only(&self) -> Self {
        let only = |map: &Map| Map {
            ranges: Vec::new(),
            squash: map.squash,
        };
        Self {
            users: only(&self.users),
            groups: only(&self.groups),
        }
    }

    /// How a user on disk is seen.
    #[must_use]
    pub(in crate::union) fn seen_uid(&self, disk: u32) -> u32 {
        self.users.seen(disk)
    }

    /// How a group on disk is seen.
    #[must_use]
    pub(in crate::union) fn seen_gid(&self, disk: u32) -> u32 {
        self.groups.seen(disk)
    }

    /// How a user that owns something is stored: as the overflow id when it has no place on disk.
    /// An engine works in the tree of a container under the ids of its host, which no mapping of
    /// the container is about, and returns what it made to the container in the next step.
    #[must_use]
    pub(in crate::union) fn disk_uid(&self, seen: u32) -> u32 {
        self.users.disk(seen).unwrap_or(OVERFLOW_ID)
    }

    /// The same for a group.
    #[must_use]
    pub(in crate::union) fn disk_gid(&self, seen: u32) -> u32 {
        self.groups.disk(seen).unwrap_or(OVERFLOW_ID)
    }

    /// Translates the ids inside the value of an xattr: those of ACLs and of file capabilities. A
    /// value of another shape is left as it is: the file system below will refuse it. An id on disk
    /// that is not mapped is seen as the overflow id; `None` for an id that has no place on disk
    /// (the kernel refuses it with EINVAL, `posix_acl_from_xattr`): what says who may do something
    /// is not about another user then, unlike an owner, which must be some user.
    #[must_use]
    pub(super) fn translate_xattr(
        &self,
        name: &[u8],
        mut value: Vec<u8>,
        to: Side,
    ) -> Option<Vec<u8>> {
        if self.users.is_identity() && self.groups.is_identity() {
            return Some(value);
        }
        match name {
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                self.translate_acl(&mut value, to)?;
            }
            b"security.capability" => self.translate_capability(&mut value, to)?,
            _ => {}
        }
        Some(value)
    }

    /// An ACL (the kernel's `posix_acl_xattr.h`): a 32-bit version, then entries of 16-bit tag,
    /// 16-bit permissions, 32-bit id, all little-endian.
    fn translate_acl(&self, value: &mut [u8], to: Side) -> Option<()> {
        const HEADER: usize = 4;
        const ENTRY: usize = 8;
        const ACL_USER: u16 = 0x02;
        const ACL_GROUP: u16 = 0x08;
        for entry in value
            .get_mut(HEADER..)
            .unwrap_or_default()
            .chunks_exact_mut(ENTRY)
        {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let translated = match (tag, to) {
                (ACL_USER, Side::Seen) => self.seen_uid(id),
                (ACL_USER, Side::Disk) => self.users.disk(id)?,
                (ACL_GROUP, Side::Seen) => self.seen_gid(id),
                (ACL_GROUP, Side::Disk) => self.groups.disk(id)?,
                _ => id,
            };
            entry[4..].copy_from_slice(&translated.to_le_bytes());
        }
        Some(())
    }

    /// File capabilities (`vfs_ns_cap_data` in `linux/capability.h`): of the third revision, the
    /// last four bytes name the root of the user namespace that they count in, little-endian.
    fn translate_capability(&self, value: &mut [u8], to: Side) -> Option<()> {
        const SIZE: usize = 24;
        const ROOT: usize = 20;
        const REVISION: u8 = 3;
        if value.len() != SIZE || value[3] != REVISION {
            return Some(());
        }
        let root = u32::from_le_bytes([value[20], value[21], value[22], value[23]]);
        let root = match to {
            Side::Seen => self.seen_uid(root),
            Side::Disk => self.users.disk(root)?,
        };
        value[ROOT..].copy_from_slice(&root.to_le_bytes());
        Some(())
    }
}

/// Which side ids are translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// As seen through the mount.
    Seen,
    /// As stored on disk.
    Disk,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn maps(ranges: &[(u32, u32, u32)]) -> IdMaps {
        let ranges: Vec<_> = ranges
            .iter()
            .map(|&(disk, seen, len)| IdRange { disk, seen, len })
            .collect();
        IdMaps::new(&Config {
            uid_map: ranges.clone(),
            gid_map: ranges,
            ..Config::default()
        })
    }

    #[test]
    fn no_map_changes_nothing() {
        let maps = maps(&[]);
        assert_eq!(maps.seen_uid(7), 7);
        assert_eq!(maps.disk_gid(7), 7);
    }

    #[test]
    fn what_is_no_id_is_not_stored() {
        let identity = maps(&[]);
        let shifted = maps(&[(0, u32::MAX - 1, 10), (u32::MAX - 1, 500, 2)]);
        for maps in [identity, shifted] {
            assert_eq!(maps.disk_uid(u32::MAX), OVERFLOW_ID);
            assert_eq!(maps.disk_gid(501), maps.disk_uid(501));
            assert_ne!(maps.disk_uid(501), u32::MAX);
        }
    }

    #[test]
    fn stored_ids_are_seen_shifted() {
        let maps = maps(&[(0, 100_000, 1000), (5000, 1, 2)]);
        assert_eq!(maps.seen_uid(5), 100_005);
        assert_eq!(maps.disk_uid(100_006), 6);
        assert_eq!(maps.seen_uid(5001), 2);
        assert_eq!(maps.seen_uid(1000), OVERFLOW_ID);
        for nobody in [0, 101_000] {
            assert_eq!(maps.disk_uid(nobody), OVERFLOW_ID);
            assert_eq!(maps.disk_gid(nobody), OVERFLOW_ID);
        }
    }

    #[test]
    fn squash_wins_in_both_directions() {
        let maps = IdMaps::new(&Config {
            squash_uid: Some(0),
            squash_gid: Some(5),
            ..Config::default()
        });
        assert_eq!((maps.seen_uid(1000), maps.seen_gid(1000)), (0, 5));
        assert_eq!((maps.disk_uid(1000), maps.disk_gid(1000)), (0, 5));
    }

    #[test]
    fn ids_inside_acls_are_translated() {
        let maps = maps(&[(0, 100, 50)]);
        let acl = [
            2, 0, 0, 0, //
            1, 0, 7, 0, 255, 255, 255, 255, // the owner: no id
            2, 0, 6, 0, 5, 0, 0, 0, // user 5
        ];
        let translate =
            |value: &[u8], to| maps.translate_xattr(b"system.posix_acl_access", value.to_vec(), to);
        let seen = translate(&acl, Side::Seen).unwrap();
        assert_eq!(seen[8..12], [255; 4]);
        assert_eq!(seen[16..20], [105, 0, 0, 0]);
        assert_eq!(translate(&seen, Side::Disk).unwrap(), acl);
        assert_eq!(translate(b"odd", Side::Disk).unwrap(), b"odd");
        // An entry for a user who has no id on the disk would be one for another user.
        assert_eq!(translate(&acl, Side::Disk), None);
    }

    #[test]
    fn the_root_of_a_capability_is_translated() {
        let maps = maps(&[(0, 100, 50), (1000, 5, 1)]);
        let capability = |revision, root: u32| {
            let mut value = vec![1, 0, 0, revision];
            value.extend_from_slice(&[0; 16]);
            value.extend_from_slice(&root.to_le_bytes());
            value
        };
        let whole = |value, to| maps.translate_xattr(b"security.capability", value, to);
        let translate = |value, to| whole(value, to).unwrap();
        assert_eq!(whole(capability(3, 60), Side::Disk), None);
        for (disk, seen) in [(7, 107), (1000, 5), (60, OVERFLOW_ID)] {
            assert_eq!(
                translate(capability(3, disk), Side::Seen),
                capability(3, seen)
            );
        }
        assert_eq!(translate(capability(3, 5), Side::Disk), capability(3, 1000));
        // The second revision has no root; its value is four bytes shorter.
        let second = capability(2, 7)[..20].to_vec();
        assert_eq!(translate(second.clone(), Side::Seen), second);
        assert_eq!(translate(capability(2, 7), Side::Seen), capability(2, 7));
        let other = maps.translate_xattr(b"user.x", capability(3, 7), Side::Seen);
        assert_eq!(other, Some(capability(3, 7)));
    }
}
