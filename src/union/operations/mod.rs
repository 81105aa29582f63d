//! Every operation of a union, addressed by node id: names, content, metadata. Here a node id
//! becomes an inode, and here the merged tree and volumes part where they differ; the rooms below
//! work on inodes.

mod content;
mod metadata;
mod names;
