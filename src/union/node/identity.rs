//! `st_ino`: a function of what an entry originally was.
//!
//! | entry | `st_ino` |
//! | --- | --- |
//! | made in the upper | its inode number on the upper's disk |
//! | in a lower layer | layer number counted from the oldest, and its inode number there |
//! | on another disk, which is mounted in a layer (or is another subvolume) | layer number, that disk's device number, and its inode number there |
//! | copied up from a lower layer | what it was below; remembered in an xattr of the copy |
//! | in a volume | the number of the first volume on its disk, and its inode number there |
//!
//! The layer's number is part of it because layers may share inodes (stores that link equal files
//! together) and may lie on different disks. It counts from the oldest layer so that a new layer on
//! top changes nothing.
//!
//! A number has 32 bits where that is possible, for programs that know no others: they are shared
//! out among layers and volumes by a code (`narrow`), so that which number it is depends on nothing
//! but the entry. Where an inode number is too large for its share, more bits are used: in ranges
//! of their own, so that no number means two things. `ino32_t` forces what remains into 32 bits by
//! a hash, with the chance that two meet.

use crate::layer::dir::Source;

/// Bits for the inode number on the layer's disk in a number of more than 32 bits; a larger one is
/// hashed.
const INO_BITS: u32 = 40;
/// Bits for the number of the layer.
const LAYER_BITS: u32 = 21;
/// Set in numbers that are a hash, so that they never meet the plain ones.
const HASHED: u64 = 1 << 62;
/// Set in numbers of the upper that would look like those of another layer.
const UPPERS: u64 = 1 << 61;
/// Bits for the inode number of the oldest layers, and of the upper; the next ones have [`STEP`]
/// fewer.
const WIDEST_SHARE: u32 = 28;
/// A digit of the code that says whose number it is. All bits set: the next digit says it.
const STEP: u32 = 4;
/// The first digit of volumes' numbers, and bits for which one it is.
const VOLUMES: u64 = 14;
const VOLUME_BITS: u32 = 2;

/// How the entries of one union are numbered.
#[derive(Debug)]
pub(in crate::union) struct Numbering {
    /// All numbers have 32 bits (`ino32_t`).
    forced: bool,
    /// The disk of each layer's root, by the layer's number.
    disks: Vec<Disk>,
}

/// Where a layer begins.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::union) struct Disk {
    /// The device of its root.
    pub(in crate::union) device: u64,
    /// Entries of one directory may be on several disks, which only stat(2) shows: another
    /// overlay's.
    pub(in crate::union) mixed: bool,
}

impl Numbering {
    /// `disks` are those of the layers' roots, the upper's first (any when there is none).
    pub(in crate::union) fn new(forced: bool, disks: Vec<Disk>) -> Self {
        Self { forced, disks }
    }

    /// Whether each entry of a layer must be asked where it is.
    pub(in crate::union) fn is_mixed(&self, layer: Source) -> bool {
        let disk = self.root(layer);
        disk.is_some_and(|disk| disk.mixed)
    }

    /// The `st_ino` of an entry of a layer that is on the device `dev`.
    pub(in crate::union) fn of(&self, layer: Source, dev: u64, ino: u64) -> u64 {
        let number_from_oldest = self.number_from_oldest(layer);
        self.fit(match self.root(layer) {
            Some(root) if root.device != dev => elsewhere(number_from_oldest, dev, ino),
            _ => compose(number_from_oldest, ino),
        })
    }

    /// The `st_ino` of an entry that was made in the upper.
    pub(in crate::union) fn of_upper(&self, ino: u64) -> u64 {
        self.fit(compose(0, ino))
    }

    /// The same in the form that unions of before had: a copy may remember it.
    pub(in crate::union) fn of_before(&self, layer: Source, ino: u64) -> u64 {
        wide(self.number_from_oldest(layer), ino)
    }

    /// The disk of a layer's root.
    fn root(&self, layer: Source) -> Option<&Disk> {
        match layer {
            Source::Upper => self.disks.first(),
            Source::Lower(number) => self.disks.get(usize::from(number) + 1),
            Source::DataOnly | Source::Volume(_) => None,
        }
    }

    /// The number of a layer from the oldest, which is 1; 0 for the upper.
    fn number_from_oldest(&self, layer: Source) -> u64 {
        let Source::Lower(number) = layer else {
            return 0;
        };
        self.disks.len().saturating_sub(usize::from(number) + 1) as u64
    }

    /// A number that was remembered, or made for a volume, as it is shown.
    pub(in crate::union) fn fit(&self, number: u64) -> u64 {
        if self.forced && number >> 32 != 0 {
            // Not 0, which is no number, and not 1, which is the root's.
            (mix(number) >> 32).max(2)
        } else {
            number
        }
    }
}

/// The `st_ino` of an object of a volume: the volume's number takes the place of a layer's, counted
/// down from the largest. `dev` is 0 on the disk of the volume itself, and the device of another
/// one that is mounted in it.
#[must_use]
pub(in crate::union) fn of_volume(volume: u16, dev: u64, ino: u64) -> u64 {
    let layer = (1 << LAYER_BITS) - 1 - u64::from(volume);
    if dev != 0 {
        return elsewhere(layer, dev, ino);
    }
    let share = WIDEST_SHARE - VOLUME_BITS;
    if u64::from(volume) >> VOLUME_BITS == 0 && ino >> share == 0 {
        return VOLUMES << WIDEST_SHARE | u64::from(volume) << share | ino;
    }
    wide(layer, ino)
}

fn elsewhere(layer: u64, dev: u64, ino: u64) -> u64 {
    HASHED | (mix(ino ^ mix(dev ^ mix(layer))) >> 2)
}

fn compose(layer: u64, ino: u64) -> u64 {
    narrow(layer, ino).unwrap_or_else(|| wide(layer, ino))
}

/// The number in 32 bits: a digit for the layer, and its inode number. 14 layers (the upper is the
/// first) have 28 bits each; the last digit leads to another one for 15 layers with 24 bits each,
/// whose last one leads to 15 with 20.
fn narrow(layer: u64, ino: u64) -> Option<u64> {
    const LAST: u64 = (1 << STEP) - 1;
    let (mut prefix, mut share, mut layer) = (0, WIDEST_SHARE, layer);
    // The volumes' digit is the last but one of the first.
    let mut digits = VOLUMES;
    while layer >= digits {
        layer -= digits;
        digits = LAST;
        prefix = (prefix << STEP) | LAST;
        share = share.checked_sub(STEP).filter(|share| *share >= 20)?;
    }
    (ino >> share == 0).then_some(((prefix << STEP) | layer) << share | ino)
}

fn wide(layer: u64, ino: u64) -> u64 {
    if ino >> INO_BITS != 0 || layer >> LAYER_BITS != 0 {
        return HASHED | (mix(ino ^ mix(layer)) >> 2);
    }
    if layer == 0 && ino >> WIDEST_SHARE != 0 && ino >> 32 == 0 {
        return UPPERS | ino;
    }
    layer << INO_BITS | ino
}

/// The finalizer of SplitMix64: a bijection that spreads every bit of its input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The xattr value that remembers an origin. It names the inode it is stored on as well, so that a
/// copy of the upper made with its xattrs (`cp -a`, a restored backup) does not inherit a number
/// that is not its own.
#[must_use]
pub(in crate::union) fn encode_origin(st_ino: u64, on_disk: u64) -> Vec<u8> {
    format!("{st_ino}:{on_disk}").into_bytes()
}

/// Reads an origin back for an inode; `None` when it is odd or belongs to another inode.
#[must_use]
pub(in crate::union) fn decode_origin(value: &[u8], on_disk: u64) -> Option<u64> {
    let (st_ino, holder) = std::str::from_utf8(value).ok()?.split_once(':')?;
    let st_ino: u64 = st_ino.parse().ok()?;
    (holder.parse() == Ok(on_disk) && st_ino != 0 && st_ino >> 63 == 0).then_some(st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk {
        device: 7,
        mixed: false,
    };

    /// The layer of a number: 0 is the upper, lowers count from 1, newest first.
    fn at(number: u16) -> Source {
        number.checked_sub(1).map_or(Source::Upper, Source::Lower)
    }

    /// A union of `lowers` lower layers, all on the device 7.
    fn numbering(lowers: usize) -> Numbering {
        Numbering::new(false, vec![DISK; lowers + 1])
    }

    #[test]
    fn layers_with_equal_inodes_stay_apart() {
        let of = numbering(3);
        let many = numbering(usize::from(u16::MAX) - 1);
        let mut numbers = vec![
            of.of(at(1), 7, 12 | 1 << 41),
            of.of(at(2), 7, 12 | 1 << 41),
            of.of_upper(u64::MAX),
            of_volume(0, 7, 12),
            of_volume(u16::MAX, 0, 12),
            many.of(at(1), 7, 12),
        ];
        // Another disk in a layer, and the same disk in another layer.
        numbers.extend([
            of.of(at(1), 8, 12),
            of.of(at(1), 9, 12),
            of.of(at(2), 8, 12),
            of.of(at(0), 8, 12),
        ]);
        // At the borders of all shares.
        let hundred = numbering(100);
        for ino in [
            1,
            12,
            (1 << 20) - 1,
            1 << 20,
            1 << 24,
            1 << 26,
            1 << 28,
            1 << 31,
            1 << 33,
        ] {
            numbers.extend((0..=100).map(|layer| hundred.of(at(layer), 7, ino)));
            numbers.extend((0..10).map(|volume| of_volume(volume, 0, ino)));
        }
        let distinct: std::collections::HashSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len());
        assert!(numbers.iter().all(|n| n >> 63 == 0 && *n != 0));
    }

    #[test]
    fn a_new_layer_on_top_changes_no_number() {
        for ino in [5, 1 << 23, 1 << 27, 1 << 40] {
            assert_eq!(
                numbering(1).of(at(1), 7, ino),
                numbering(3).of(at(3), 7, ino)
            );
            assert_eq!(
                numbering(20).of(at(3), 7, ino),
                numbering(60).of(at(43), 7, ino)
            );
        }
    }

    #[test]
    fn numbers_have_32_bits_while_there_is_room() {
        let fits = |number: u64| number >> 32 == 0;
        let all_fit = |lowers: u16, ino: u64| {
            let numbers = numbering(usize::from(lowers));
            (0..=lowers).all(|layer| fits(numbers.of(at(layer), 7, ino)))
        };
        assert!(all_fit(13, (1 << 28) - 1) && !all_fit(14, (1 << 28) - 1));
        assert!(all_fit(28, (1 << 24) - 1) && !all_fit(29, (1 << 24) - 1));
        assert!(all_fit(43, (1 << 20) - 1) && !all_fit(44, 1));
        assert!(fits(of_volume(3, 0, (1 << 26) - 1)) && !fits(of_volume(4, 0, 1)));
        assert_eq!(numbering(3).of_upper(12), 12);
    }

    #[test]
    fn all_numbers_have_32_bits_where_that_is_asked_for() {
        let forced = Numbering::new(true, vec![DISK; 101]);
        for ino in [12, 1 << 30, 1 << 35, u64::MAX] {
            for (layer, dev) in [(0, 7), (1, 7), (100, 7), (1, 8)] {
                let number = forced.of(at(layer), dev, ino);
                assert!(number > 1 && number >> 32 == 0);
            }
        }
        // What fits is the same with it and without.
        let free = numbering(100);
        assert_eq!(forced.of(at(100), 7, 12), free.of(at(100), 7, 12));
        assert_eq!(forced.fit(forced.fit(1 << 50)), forced.fit(1 << 50));
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
