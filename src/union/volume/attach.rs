//! Putting volumes into the merged tree, when the union is opened (see [`crate::union::volume`]).
//!
//! # Crash
//! A target that no layer has is made as an ordinary directory or file of the upper. That stays,
//! regardless of the mount, as it does with every container engine.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::dir::Name;
use crate::layer::stat::{BirthTime, Kind, Stat};
use crate::sync::write;
use crate::union::config::{Setup, SetupError};
use crate::union::error::{Error, Result, fail};
use crate::union::node::ids::VolumeNo;
use crate::union::node::inode::{Inode, Place, Real};
use crate::union::node::mount_point::MountPoint;
use crate::union::node::volume::Volume;
use crate::union::{Caller, New, Union, config};

/// Most symlinks that are followed on the way to a target.
const MOST_SYMLINKS: usize = 40;

/// The source of a volume, as it was when it was opened.
#[derive(Debug)]
pub(in crate::union) struct VolumeRoot {
    kind: Kind,
    ino: u64,
    birth: BirthTime,
}

/// Opens what the volumes show.
pub(in crate::union) fn open_sources(
    volumes: &[config::Volume],
) -> Setup<Vec<(Volume, VolumeRoot)>> {
    volumes.iter().map(open_source).collect()
}

fn open_source(volume: &config::Volume) -> Setup<(Volume, VolumeRoot)> {
    let source = &volume.source;
    let problem = |errno: Errno| {
        SetupError::new(
            format!("cannot open volume {}: {errno}", source.display()),
            match errno {
                Errno::NOENT => "create it, or correct the path",
                Errno::ACCESS | Errno::PERM => "give a directory or file that you may read",
                _ => "see whether its disk is healthy and mounted",
            },
        )
        .caused_by(&errno)
    };
    let open = |flags| rustix::fs::open(source, flags | OFlags::CLOEXEC, Mode::empty());
    let mut fd = open(OFlags::PATH).map_err(problem)?;
    let stat = Stat::of_fd(&fd).map_err(problem)?;
    match stat.kind() {
        Kind::Dir => fd = open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(problem)?,
        Kind::File => {}
        _ => {
            return Err(SetupError::new(
                format!(
                    "volume {} is neither a directory nor a regular file",
                    source.display()
                ),
                "share the directory that it is in",
            ));
        }
    }
    let knows_births = tells_births(&fd).map_err(problem)?;
    let opened = Volume {
        fd: Arc::new(fd),
        dev: stat.dev,
        read_only: volume.read_only,
        knows_births,
    };
    let source = VolumeRoot {
        kind: stat.kind(),
        ino: stat.ino,
        birth: opened.birth_of(&stat),
    };
    Ok((opened, source))
}

/// Whether the time that a disk says an object was made at never changes. That of another overlay
/// does: it is another object's after a copy-up.
fn tells_births(fd: &OwnedFd) -> rustix::io::Result<bool> {
    // ext4, XFS, btrfs, tmpfs, F2FS, bcachefs (`magic.h`).
    const KNOWN: [u32; 6] = [
        0xef53,
        0x5846_5342,
        0x9123_683e,
        0x0102_1994,
        0xf2f5_2010,
        0xca45_1a4e,
    ];
    let found = rustix::fs::fstatfs(fd)?.f_type;
    // A word of a size and sign that depend on the machine.
    let number = i128::from(found) & 0xffff_ffff;
    Ok(KNOWN.iter().any(|known| i128::from(*known) == number))
}

impl Union {
    /// Shows the volumes at their targets, those nearer to the root first.
    pub(in crate::union) fn attach(
        &self,
        asked: &[config::Volume],
        sources: &[VolumeRoot],
    ) -> Setup<()> {
        let mut order: Vec<usize> = (0..asked.len()).collect();
        order.sort_by_key(|&number| asked[number].target.components().count());
        for number in order {
            let (Some(volume), Some(source)) = (asked.get(number), sources.get(number)) else {
                continue;
            };
            let Ok(no) = VolumeNo::try_from(number) else {
                return Err(SetupError::new("too many volumes", "use fewer of them"));
            };
            self.attach_one(volume, no, source)?;
        }
        Ok(())
    }

    fn attach_one(&self, asked: &config::Volume, no: VolumeNo, source: &VolumeRoot) -> Setup<()> {
        let target = asked.target.display();
        let (parent, name) = self
            .target(&asked.target, source.kind)
            .map_err(|error| explain(&asked.target, &error))?;
        let there = self
            .child(&parent, &name)
            .map_err(|error| explain(&asked.target, &error))?;
        if let Some(there) = there {
            if self.is_mount(&there.inode) {
                return Err(SetupError::new(
                    format!("two volumes are to be shown at {target}"),
                    "give each a target of its own",
                ));
            }
            if (there.inode.kind == Kind::Dir) != (source.kind == Kind::Dir) {
                let (what, is) = match source.kind {
                    Kind::Dir => ("directory", "is none"),
                    _ => ("file", "is a directory"),
                };
                return Err(SetupError::new(
                    format!(
                        "a {what} cannot be shown at {target}, which {is}: {}",
                        asked.source.display()
                    ),
                    "correct the source or the target",
                ));
            }
        }
        let inode = self.volume_root(no, source, &parent, &name);
        let mount = MountPoint {
            parent: Arc::clone(&parent),
            name,
            inode,
        };
        let id = mount.parent.id;
        write(&self.volumes.mounts).push(mount);
        if let Some(mut state) = parent.lock_dir()
            && let Some(listing) = &mut state.listing
        {
            self.show_mounts(Some(id), listing);
        }
        Ok(())
    }

    fn volume_root(
        &self,
        no: VolumeNo,
        source: &VolumeRoot,
        parent: &Arc<Inode>,
        name: &Name,
    ) -> Arc<Inode> {
        let fd: Arc<OwnedFd> = match self.volumes.list.get(usize::from(no)) {
            Some(volume) => Arc::clone(&volume.fd),
            None => return Arc::clone(parent),
        };
        let dir = WritableDir::volume(no, Arc::clone(&fd), &self.layers.fds);
        let node = if source.kind == Kind::Dir {
            let place = Place {
                parent: Arc::clone(parent),
                name: Arc::clone(name),
            };
            self.new_dir_node(Some(place), Some(dir), Vec::new())
        } else {
            // Held by its descriptor: it stays the same file, as with a bind mount.
            self.new_file_node(Real::Orphan(dir.wrap(fd)))
        };
        let volume = Some((no, source.birth));
        self.new_inode(volume, self.ino_in(no, source.ino), source.kind, node)
    }

    /// The directory and the name of a target, made if need be. Symlinks are followed inside the
    /// union, and `..` leads to the root at most.
    fn target(&self, target: &Path, kind: Kind) -> Result<(Arc<Inode>, Name)> {
        let split = |path: &[u8]| -> Vec<Name> {
            let names = path.split(|byte| *byte == b'/');
            names.filter(|n| !n.is_empty()).map(Name::from).collect()
        };
        let mut todo: VecDeque<Name> = split(target.as_os_str().as_bytes()).into();
        let mut at = Arc::clone(&self.nodes.root);
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match &*name {
                b"." => continue,
                b".." => {
                    if let Some(place) = at.place() {
                        at = place.parent;
                    }
                    continue;
                }
                _ => {}
            }
            let found = self.child(&at, &name)?;
            let is_last = todo.is_empty();
            match found.map(|child| child.inode) {
                Some(link) if link.kind == Kind::Symlink => {
                    links += 1;
                    if links > MOST_SYMLINKS {
                        return fail(Errno::LOOP);
                    }
                    let to = self.read_link_of(&link)?;
                    if to.starts_with(b"/") {
                        at = Arc::clone(&self.nodes.root);
                    }
                    for name in split(&to).into_iter().rev() {
                        todo.push_front(name);
                    }
                }
                Some(_) if is_last => return Ok((at, name)),
                Some(dir) if dir.kind == Kind::Dir => at = dir,
                Some(_) => return fail(Errno::NOTDIR),
                None => {
                    let made =
                        self.make_target(&at, &name, if is_last { kind } else { Kind::Dir })?;
                    if is_last {
                        return Ok((at, name));
                    }
                    at = made;
                }
            }
        }
        // The root itself.
        fail(Errno::BUSY)
    }

    fn make_target(&self, parent: &Arc<Inode>, name: &Name, kind: Kind) -> Result<Arc<Inode>> {
        let ids = self.ids_of(parent);
        let caller = Caller {
            uid: ids.seen_uid(self.rules.daemon.0),
            gid: ids.seen_gid(self.rules.daemon.1),
            ..Caller::default()
        };
        let new = match kind {
            Kind::Dir => New::Dir { mode: 0o755 },
            _ => New::Node {
                kind: Kind::File,
                mode: 0o644,
                rdev: 0,
            },
        };
        let made = match parent.volume() {
            Some(_) => self.make_in_volume(parent, name, &new, &caller),
            None => self.make_in_layers(parent, name, &new, &caller),
        };
        Ok(made?.inode)
    }
}

fn explain(target: &Path, error: &Error) -> SetupError {
    let target = target.display();
    let explained = match error.errno() {
        Errno::ROFS => SetupError::new(
            format!(
                "volume target {target} does not exist, and cannot be made: there is no writable upper"
            ),
            "make it in a layer, or give an upper directory",
        ),
        Errno::BUSY => SetupError::new(
            "a volume cannot be shown at the root of the union",
            "give a target below it, such as /data",
        ),
        Errno::NOTDIR => SetupError::new(
            format!("volume target {target} leads through something that is no directory"),
            "correct the target",
        ),
        Errno::LOOP => SetupError::new(
            format!("volume target {target} leads through symlinks in a circle"),
            "correct the target",
        ),
        _ => SetupError::new(
            format!("volume target {target}: {error}"),
            "see whether the layers' disks are healthy, or give another target",
        ),
    };
    explained.caused_by(error)
}
