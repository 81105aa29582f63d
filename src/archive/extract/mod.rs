//! Archives into directories: confined beneath one directory ([`unpack()`]), and from there in
//! place of another directory or onto a tree ([`apply()`]).

mod apply;
mod aside;
mod below;
mod beneath;
mod implied;
mod inside;
mod links;
mod merge;
mod mounts;
mod policy;
mod root;
mod target;
mod unpack;

#[cfg(test)]
pub(super) use beneath::is_mark;
pub(crate) use implied::apply_lower_metadata;
pub use target::{ApplyMode, apply};
pub(crate) use unpack::Unpacked;
pub(crate) use unpack::keep;
pub use unpack::{Expect, Unpack, unpack};
