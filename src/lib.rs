//! unionmount: a union filesystem in userspace. This page is the map of the code.
//!
//! A *stack* is one optional writable *upper* directory over read-only *lower* directories, newest first. The crate
//! shows it as one tree. The first layer that has a name decides; directory over directory merges; *whiteouts* and
//! *opaque* directories hide what lies below; a change of a lower object *copies it up* first.
//!
//! ```text
//! main ─> cli ─┬> fuse ─────────────> union ─> layer ─> sys
//!              └> store ─> archive ─────┴────────┘
//! ```
//!
//! Each room knows only those to its right:
//!
//! * [`check`]: layers that are not mounted: their marks rewritten, what is wrong with them found and mended.
//! * [`cli`]: the command line, the `-o` language, checks of paths before the mount, unmounting.
//! * [`store`]: images, layers, containers and volumes in one directory: a catalog of what refers to what, the documents of
//!   images, loading, saving, committing, collecting what is not used any more. It knows [`archive`] and [`union`], and of
//!   [`fuse`] only what is mounted.
//! * [`fuse`]: one session: mounting, the daemon, INIT, and three transports. `proto` reads requests and writes replies,
//!   `serve` calls the union in between; `dev` (/dev/fuse) and `uring` (FUSE over io_uring) carry the bytes. `fuser` is the
//!   portable adapter, which does all of that by the library of that name; it mounts and shakes hands for the other two.
//!   Nothing else knows fuser or the wire.
//! * [`union`]: the merged tree. Plain arguments in, plain results out, addressed by [`union::NodeId`]; it is tested
//!   without a mount.
//! * [`archive`]: layers as tar streams: reading, verifying and extracting them beneath one directory; the changes of an
//!   upper, and a whole union, written as such.
//! * [`layer`]: one directory of a layer: opening beneath it, its marks on disk, what it can do. Lower layers are
//!   read-only by type.
//! * [`sys`]: the few system calls that rustix does not wrap, and the only unsafe code. [`sync`]: locks. [`cancel`]:
//!   whether a command is to end early, and what it has to remove before.
//!
//! # How the union works
//!
//! * **A directory is read as a whole, once.** Its first use lists every contributing layer with getdents; from then on
//!   the listing is kept up to date by the mount's own operations. Lookups of names that are there, and of names that
//!   are not, cost no system call, 64 layers cost no more than one, and lookup, stat and readdir answer from one model.
//! * **Stacks are inherited.** A directory's layers are chosen among its parent's, by what the parent's listing saw
//!   under the name; whether one of them is opaque is found when the directory itself is read. Nothing is ever resolved
//!   from a layer's root again, but redirects.
//! * **Handles, not paths.** A real object is a directory object and a name, or a descriptor. Directory objects know
//!   their parent and name and are opened when needed; a bounded cache decides what stays open.
//! * **No state per open file.** OPEN, OPENDIR, CREATE and FLUSH answer ENOSYS, and the kernel stops asking. Copy-up runs
//!   at the first write or change of metadata. Readdir continues behind cookies that belong to names, not to open
//!   directories; newer names have larger ones and are read first, so that reading ends while others make more. An unlinked
//!   inode holds on to its file by a descriptor until the kernel forgets it.
//! * **Publish once.** What is new is built in the work directory and appears by one system call, on disk before it is
//!   visible. `.wh.` marks are written before an entry goes and removed after one came: a mark beside an entry of its
//!   own layer hides nothing of it, so there is no moment in which a deleted name is back.
//! * **No allocation, no copy.** A request is decoded where it lies; a read goes from the file into the reply's buffer, a
//!   write from the request's buffer into the file.
//! * **Only the request that needs a slow disk waits for it.** Threads that are kept by long requests get company
//!   (`fuse/transport/load.rs`); on io_uring each thread has an entry of its own, so that it keeps back one request at most.
//! * **Identity.** `st_ino` is a function of the origin: the layer, counted from the oldest, and the inode there. A copy
//!   remembers it in an xattr, and directories that hold such copies are marked *impure*, so that others are listed
//!   without asking each name. Node ids come from a counter and are never given to another object.
//! * **Hard links** of a layer are one inode with all the names that are visible, found by an index of the layer that is
//!   made when the first such file is met; a copy-up publishes all of them, and a list in the work directory lets the next
//!   mount finish what a crash interrupted.
//! * **Layers that are edited** while they are mounted (`cache=auto`) have each directory watched that was read: one thread
//!   is notified of changes and reads again what they are about (`union/live/watching.rs`, `union/merge/renew.rs`), another notifies the kernel of what differs
//!   (`fuse/serve/notifier.rs`). What cannot be watched is checked again, and valid for half a second.
//! * **A volume** is a directory of the host that is shown inside the tree: no layers, no listing that is kept, no marks. All
//!   is asked of its disk at each use, and answers about it may not be cached for long.
//! * **Owners, modes and types** may be kept in an xattr (`layer/stat_override.rs`), for layers on disks that cannot store them; the
//!   layer's own room hides that from the union.
//! * **The end.** A mount that ends releases its layers before anything else, then the work directory, and syncs what was
//!   changed in the upper (`union/ending.rs`, `fuse/serve/end.rs`). `unionmount umount` asks for that before, by
//!   an ioctl on the root (`fuse/control.rs`), since the kernel does not pass syncfs(2) on.
//! * **Locks** are per inode, in an order that is written where they are declared (`union/node/inode.rs`); none is held
//!   over a data copy, an fsync or a reply, but the copy-up lock of the inode that is being copied.
//!
//! # What a crash leaves
//!
//! Each module that changes the disk says in its documentation what the next mount sees when the daemon is killed between
//! two steps. `tests/crash.rs` kills it a hundred times.
//!
//! # Dependencies, and what each is for
//!
//! fuser (mounting, handshake, the portable transport), zerocopy (structures of the protocol), io-uring (rings),
//! rustix (system calls without unsafe), libc (what rustix lacks),
//! dashmap (inode tables), clap with clap_mangen and clap_complete (arguments, manual page, completions), strsim (the
//! nearest option name), rusqlite with its own SQLite (the store's catalog: several processes, transactions),
//! time (RFC 3339), toml (podman's storage.conf), log and env_logger, tar (the fields of a tar header), flate2 with zlib-rs and zstd
//! (compression), sha2 (digests), serde and serde_json (documents; why not
//! oci-spec, `store/image/documents` says), indicatif (progress bars); tempfile and proptest for
//! tests.

pub mod archive;
pub mod cancel;
pub mod check;
pub mod cli;
pub mod fuse;
pub mod layer;
pub mod store;
pub mod sync;
pub mod sys;
pub mod union;
