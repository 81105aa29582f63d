//! Tests of `listing.rs`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::layer::marks::Mark;
use crate::union::node::stack::Found;

fn name(text: &str) -> Name {
    Name::from(text.as_bytes())
}

fn add(listing: &mut Listing, text: &str) {
    listing.update(&name(text), |slot| {
        slot.merged.upper = Some(Found {
            kind: Kind::File,
            ino: 1,
        });
    });
}

fn names(listing: &Listing, cookie: u64) -> Vec<String> {
    listing
        .after(cookie)
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[test]
fn positions_stay_valid_while_entries_come_and_go() {
    let mut listing = Listing::default();
    for text in ["a", "b", "c", "d"] {
        add(&mut listing, text);
    }
    let behind_c = listing.get(b"c").unwrap().cookie;
    listing.update(&name("c"), |slot| slot.merged.upper = None);
    listing.update(&name("b"), |slot| slot.merged.upper = None);
    add(&mut listing, "e");
    assert_eq!(names(&listing, behind_c), ["a"]);
    add(&mut listing, "b");
    // Made again: for who is reading it came after it had begun.
    assert_eq!(names(&listing, behind_c), ["a"]);
    for start in 0..FIRST_COOKIE {
        assert_eq!(names(&listing, start), ["b", "e", "d", "a"]);
    }
}

#[test]
fn a_reader_comes_to_the_end_whatever_is_made_meanwhile() {
    let mut listing = Listing::default();
    for number in 0..100 {
        add(&mut listing, &format!("old{number}"));
    }
    let mut read = Vec::new();
    let mut cookie = 0;
    let next = |listing: &Listing, cookie| {
        let mut after = listing.after(cookie);
        after
            .next()
            .map(|(name, slot)| (Name::clone(name), slot.cookie))
    };
    while let Some((old, position)) = next(&listing, cookie) {
        cookie = position;
        read.push(Name::clone(&old));
        assert!(read.len() <= 100, "it ends");
        // Each that was read is renamed.
        listing.update(&old, |slot| slot.merged.upper = None);
        add(&mut listing, &format!("new{}", read.len()));
    }
    assert_eq!(read.len(), 100);
    assert!(read.iter().all(|name| name.starts_with(b"old")));
    assert!(
        names(&listing, 0)
            .iter()
            .all(|name| name.starts_with("new"))
    );
}

#[test]
fn names_of_the_layers_come_in_their_order() {
    let mut merger = Merger::<Slot>::default();
    merger.begin(crate::layer::dir::Source::Lower(0));
    for text in ["z", "b", "m"] {
        merger.entry(text.as_bytes(), Kind::File, 1, None);
    }
    merger.end();
    assert_eq!(names(&Listing::of(merger, |_, _| 1), 0), ["z", "b", "m"]);
}

/// A directory of 200,000 names, once listed, is remembered for as long as its inode: 100 bytes
/// more are 20 MiB.
#[test]
fn a_name_costs_little() {
    assert!(size_of::<Slot>() <= 96, "{}", size_of::<Slot>());
}

#[test]
fn memory_is_bounded_by_the_names_that_are_there() {
    let mut listing = Listing::default();
    for _ in 0..1000 {
        add(&mut listing, "x");
        listing.update(&name("x"), |slot| slot.merged.upper = None);
    }
    assert!(listing.slots.is_empty() && listing.order.is_empty());
}

#[test]
fn a_whiteout_keeps_its_slot_but_no_position() {
    let mut listing = Listing::default();
    add(&mut listing, "x");
    listing.update(&name("x"), |slot| {
        slot.merged.upper = None;
        slot.merged.mark = Some(Mark::Beside);
    });
    assert!(listing.is_empty());
    assert!(listing.get(b"x").is_some() && listing.visible_entry(b"x").is_none());
}

#[test]
fn a_fresh_listing_inherits_positions() {
    let mut older = Listing::default();
    for text in ["a", "b", "c"] {
        add(&mut older, text);
    }
    let behind_c = older.get(b"c").unwrap().cookie;
    let mut fresh = Listing::default();
    for text in ["d", "b", "a"] {
        add(&mut fresh, text);
    }
    fresh.inherit(older, |_, _, _| true, |_, _| {});
    assert_eq!(names(&fresh, behind_c), ["b", "a"]);
    assert_eq!(names(&fresh, 0), ["d", "b", "a"]);
}
