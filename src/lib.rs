//! unionmount: a union filesystem in userspace.

pub mod cli;
pub mod fuse;
pub mod layer;
pub mod sync;
pub mod sys;
pub mod union;
