//! The walls of the house: which room of `src/` may use which, read from the sources and compared
//! with one table; and rules of style that no compiler knows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod circles;
mod dependencies;
mod rooms;
mod sources;
mod style;
