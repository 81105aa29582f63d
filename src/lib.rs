//! unionmount: a union filesystem in userspace.
//!
//! A *stack* is one optional writable *upper* directory over read-only *lower* directories, newest
//! first. The crate shows it as one tree. The first layer that has a name decides; directory over
//! directory merges; *whiteouts* and *opaque* directories hide the layers below; a change of a
//! lower object *copies it up* first.
//!
//! # Example
//!
//! Nothing is mounted: [`union::Union`] is the merged tree itself, addressed by [`union::NodeId`].
//!
//! ```
//! use std::fs;
//! use unionmount::union::{Config, NodeId, Union};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = tempfile::tempdir()?;
//! let dir = |name: &str| place.path().join(name);
//! for name in ["lower", "upper", "work"] {
//!     fs::create_dir(dir(name))?;
//! }
//! fs::write(dir("lower").join("old"), "from below")?;
//! fs::write(dir("upper").join("new"), "on top")?;
//!
//! let union = Union::open(&Config {
//!     lowers: vec![dir("lower")],
//!     upper: Some(dir("upper")),
//!     work: Some(dir("work")),
//!     ..Config::default()
//! })?;
//!
//! // The merged directory has the names of both layers.
//! let mut names = Vec::new();
//! union.readdir(NodeId::ROOT, 0, |entry| {
//!     names.push(String::from_utf8_lossy(&entry.name).into_owned());
//!     true
//! })?;
//! names.sort();
//! assert_eq!(names, [".", "..", "new", "old"]);
//!
//! // The first write copies the file up; the lower layer keeps its own. The reference that `find`
//! // returns counts a lookup, and takes it back when it is dropped.
//! let old = union.find(NodeId::ROOT, b"old")?.ok_or("no such name")?;
//! union.write(old.node.id(), 0, b"FROM")?;
//! assert_eq!(fs::read_to_string(dir("upper").join("old"))?, "FROM below");
//! assert_eq!(fs::read_to_string(dir("lower").join("old"))?, "from below");
//! # Ok(())
//! # }
//! ```
//!
//! # Rooms
//!
//! <!-- rooms -->
//! ```text
//! cli      uses  sync, sys, cancel, layer, union, archive, check, fuse, store
//!          = commands > mounting > ui > options
//! store    uses  sync, sys, cancel, layer, union, archive
//!          = upkeep > container > image > volume > tree > catalog > base
//! fuse     uses  sync, sys, layer, union
//!          = session > transport > serve > proto
//! check    uses  layer, union
//! archive  uses  sys, cancel, layer, union
//!          = pack > extract > disk > codec > tar
//! union    uses  sync, sys, layer
//!          = volume > namespace > file > live > copyup > merge > work > node
//! layer    uses  sync, sys
//! cancel   uses  sync, sys
//! sys      uses  sync
//! sync
//! ```
//! <!-- rooms -->
//!
//! A room knows no others:
//!
//! * `check`: layers that are not mounted: rewriting their marks, finding and repairing damage.
//! * [`cli`]: the command line, the `-o` language, checks of paths before the mount, unmounting.
//! * [`store`]: images, layers, containers and volumes in one directory: the catalog, the documents
//!   of images, loading, saving, committing, collecting what is no longer referred to. It knows
//!   [`archive`] and [`union`], and no transport.
//! * [`fuse`]: one session: mounting, the daemon, INIT, and three transports. `proto` reads
//!   requests and writes replies, `serve` calls the union in between; the transports `dev`
//!   (/dev/fuse) and `uring` (FUSE over io_uring) carry the bytes. `fuser` is the portable adapter,
//!   which does all of that by the library of that name; it mounts and does the handshake for the
//!   other two. No other room knows fuser or the wire.
//! * [`union`]: the merged tree. Plain arguments in, plain results out; it is tested without a
//!   mount.
//! * [`archive`]: layers as tar streams: reading, verifying and extracting them beneath one
//!   directory; the changes of an upper, and a whole union, written as such.
//! * [`layer`]: one directory of a layer: opening beneath it, its marks on disk, what it can do.
//!   Lower layers are read-only by type.
//! * `sys`: the few system calls that rustix does not wrap, and the only unsafe code. `sync`:
//!   locks. `cancel`: whether a command is to end early, and what it removes before.
//!
//! # Where to read on
//!
//! * [`guide::design`]: how the union works, what a crash leaves, what each dependency is for.
//! * [`guide::semantics`]: the promises with their tests, and the forms on disk.
//! * [`guide::limits`], [`guide::options`], [`guide::transports`], [`guide::layers`],
//!   [`guide::store`], [`guide::engines`], [`guide::performance`]: use.
//! * [`guide::contributing`], [`guide::testing`], [`guide::changelog`]: work on it.

mod archive;
mod cancel;
mod check;
mod cli;
mod fuse;
pub mod guide;
pub mod layer;
mod store;
mod sync;
mod sys;
pub mod union;

/// What the program, its tests and its fuzzers use besides. No interface: it may be another one in
/// every version.
#[doc(hidden)]
pub mod internal {
    pub use crate::cli::run;

    pub mod archive {
        pub use crate::archive::{
            Compression, Digest, ErrorKind, Expect, Limits, Ownership, Pack, Times, Unpack,
            Whiteouts, diff, export, unpack,
        };

        pub mod codec {
            pub use crate::archive::codec::{Decoder, Encoder};
        }
        pub mod extract {
            pub use crate::archive::extract::{ApplyMode, apply};
        }
        pub mod tar {
            pub use crate::archive::tar::{Content, EntryKind, TarEntry, TarReader, TarWriter};
        }
    }

    pub mod fuse {
        pub use crate::fuse::init::{Negotiated, capability_names};
        pub use crate::fuse::serve::{Outcome, Server};

        pub mod proto {
            pub use crate::fuse::proto::request::{fixed_size, split};
            pub use crate::fuse::proto::{Opcode, Operation, Request, wire};
        }
    }

    pub mod options {
        pub use crate::cli::options::{Dialect, Options};
    }

    pub mod store {
        pub use crate::store::documents;
        pub use crate::store::reference::Reference;
    }
}
