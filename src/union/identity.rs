//! `st_ino`: a function of what an entry originally was.
//!
//! | entry | `st_ino` |
//! | --- | --- |
//! | made in the upper | its inode number on the upper's disk |
//! | in a lower layer | layer number counted from the oldest, and its inode number there |
//! | copied up from a lower layer | what it was below; remembered in an xattr of the copy |
//! | in a volume | the number of the first volume on its disk, and its inode number there |
//!
//! The layer's number is part of it because layers may share inodes (stores that link equal files together)
//! and may lie on different disks. It counts from the oldest layer so that a new layer on top changes nothing.

use crate::layer::dir::LayerNo;

/// Bits for the inode number on the layer's disk; a larger number is hashed.
const INO_BITS: u32 = 40;
/// Bits for the number of the layer.
const LAYER_BITS: u32 = 21;
/// Set in numbers that are a hash, so that they never meet the plain ones.
const HASHED: u64 = 1 << 62;

/// The `st_ino` of an entry that the upper itself made.
#[must_use]
pub fn of_upper(ino: u64) -> u64 {
    compose(0, ino)
}

/// The `st_ino` of an entry of layer `layer` of a stack with `lowers` lower layers.
#[must_use]
pub fn of_lower(layer: LayerNo, lowers: usize, ino: u64) -> u64 {
    let from_oldest = (lowers + 1).saturating_sub(usize::from(layer));
    compose(from_oldest as u64, ino)
}

/// The `st_ino` of an object of a volume: the volume's number takes the place of a layer's, counted down from the largest.
/// `dev` is 0 on the disk of the volume itself, and the device of another one that is mounted in it.
#[must_use]
pub fn of_volume(volume: u16, dev: u64, ino: u64) -> u64 {
    let layer = (1 << LAYER_BITS) - 1 - u64::from(volume);
    if dev == 0 {
        compose(layer, ino)
    } else {
        HASHED | (mix(ino ^ mix(dev ^ mix(layer))) >> 2)
    }
}

fn compose(layer: u64, ino: u64) -> u64 {
    if ino >> INO_BITS == 0 && layer >> LAYER_BITS == 0 {
        layer << INO_BITS | ino
    } else {
        HASHED | (mix(ino ^ mix(layer)) >> 2)
    }
}

/// The finalizer of SplitMix64: a bijection that spreads every bit of its input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The xattr value that remembers an origin. It names the inode it is stored on as well, so that a copy of
/// the upper made with its xattrs (`cp -a`, a restored backup) does not inherit a number that is not its own.
#[must_use]
pub fn encode_origin(st_ino: u64, on_disk: u64) -> Vec<u8> {
    format!("{st_ino}:{on_disk}").into_bytes()
}

/// Reads an origin back for an inode; `None` when it is odd or belongs to another inode.
#[must_use]
pub fn decode_origin(value: &[u8], on_disk: u64) -> Option<u64> {
    let (st_ino, holder) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let st_ino: u64 = st_ino.parse().ok()?;
    (holder.parse() == Ok(on_disk) && st_ino != 0 && st_ino >> 63 == 0).then_some(st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_with_equal_inodes_stay_apart() {
        let numbers = [
            of_upper(12),
            of_lower(1, 3, 12),
            of_lower(2, 3, 12),
            of_lower(3, 3, 12),
            of_lower(3, 3, 12 | 1 << 41),
            of_lower(2, 3, 12 | 1 << 41),
            of_upper(u64::MAX),
            of_volume(0, 0, 12),
            of_volume(1, 0, 12),
            of_volume(0, 7, 12),
            of_volume(u16::MAX, 0, 12),
            of_lower(1, usize::from(u16::MAX), 12),
        ];
        let distinct: std::collections::HashSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len());
        assert!(numbers.iter().all(|n| n >> 63 == 0 && *n != 0));
    }

    #[test]
    fn a_new_layer_on_top_changes_no_number() {
        assert_eq!(of_lower(1, 1, 5), of_lower(3, 3, 5));
    }

    #[test]
    fn origins_come_back_only_on_their_own_inode() {
        let value = encode_origin(77, 5);
        assert_eq!(decode_origin(&value, 5), Some(77));
        assert_eq!(decode_origin(&value, 6), None);
        for odd in [&b""[..], b":", b"x:5", b"7", b"0:5", b"7:5:", b"\xff:5"] {
            assert_eq!(decode_origin(odd, 5), None);
        }
    }
}
