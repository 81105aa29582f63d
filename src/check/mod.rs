//! Layers that are not mounted: their marks rewritten in another form, and what is wrong with them
//! found and mended. The room stands above the union, whose rules it goes by, and below the command
//! line.
//!
//! * [`convert`](mod@convert): every whiteout and opaque mark of a layer in the form `wh` or
//!   `char`;
//! * [`inspect`]: one pass over an upper with the lowers below it, that finds what a crash, another
//!   program or a copy left;
//! * [`report`]: what was found, for people and for programs.

pub(crate) mod convert;
mod describe;
mod forms;
pub(crate) mod inspect;
mod names;
pub(crate) mod report;
mod subject;
mod users;

pub(crate) use users::users_of;
