//! The portable transport: fuser's requests over the union's operations.
//!
//! `filesystem` decodes what fuser hands over, `answer` replies; what lies between is the union's,
//! or a rule of [`crate::fuse::serve`]. What fuser 0.18 cannot carry is made up for beside it: node
//! ids and `st_ino` in `node_ids`, times before 1970 in `convert`. `workers` does what takes long,
//! on `shared`, which outlives the thread that read the request.

mod adapter;
mod answer;
mod convert;
mod filesystem;
mod list;
mod node_ids;
mod shared;
mod workers;

pub(in crate::fuse) use adapter::Adapter;
