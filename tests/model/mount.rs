//! The union behind a real mount of the real binary.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::driver::{Driver, Form, Piece, Subject};
use super::ops::{Do, Op};
use super::plain::Plain;
use super::stack::Name;
use super::tree::{Object, Tree};

const BINARY: &str = env!("CARGO_BIN_EXE_unionmount");

/// Why there can be no mount here; `None` when there can.
pub fn missing() -> Option<String> {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => None,
        Err(error) => Some(format!("/dev/fuse: {error}")),
    }
}

/// What `umount` says of a process that has something open.
const IN_USE: &str = " is in use by process ";
/// How long starting a program may take on a busy machine.
const STARTS: Duration = Duration::from_secs(5);

pub struct Mount {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    work: PathBuf,
    point: PathBuf,
    absent: Vec<Name>,
    tree: Option<Plain>,
}

impl Mount {
    /// `base` holds the mountpoint and the daemon's log.
    pub fn new(
        lowers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        point: PathBuf,
        absent: &[Name],
    ) -> Self {
        Self {
            lowers,
            upper,
            work,
            point,
            absent: absent.to_vec(),
            tree: None,
        }
    }

    fn log(&self) -> PathBuf {
        self.point.with_extension("log")
    }

    fn run(&self, command: &mut Command) -> Result<(), String> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let status = command
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .unwrap();
        if status.success() {
            return Ok(());
        }
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        Err(format!("{command:?}: {status}: {said}"))
    }

    fn tree(&mut self) -> &mut Plain {
        self.tree.as_mut().unwrap()
    }
}

impl Driver for Mount {
    fn apply(&mut self, op: &Op) -> Result<(), Errno> {
        if op.what == Do::Forget {
            support::caches::forget();
            return Ok(());
        }
        self.tree().apply(op)
    }

    fn more(&mut self, count: usize) -> Result<Vec<Piece>, Errno> {
        self.tree().more(count)
    }

    fn snapshot(&mut self) -> Result<Tree, String> {
        self.tree().snapshot()
    }

    fn held(&mut self) -> Result<Vec<Object>, String> {
        self.tree().held()
    }

    fn release_all(&mut self) {
        self.tree().release_all();
    }
}

impl Subject for Mount {
    /// Not every transport can be asked for a file without a name.
    fn lacks(&self, op: &Op) -> bool {
        matches!(op.what, Do::Unnamed(_))
            && self
                .tree
                .as_ref()
                .is_some_and(|tree| matches!(tree.unnamed(b"", 0o600), Err(Errno::OPNOTSUPP)))
    }

    fn stop(&mut self) -> Result<(), String> {
        self.tree = None;
        let begun = Instant::now();
        loop {
            let mut command = Command::new(BINARY);
            match self.run(command.arg("umount").arg(&self.point)) {
                // A program that another test is starting has a copy of all descriptors until it is
                // executed.
                Err(said) if said.contains(IN_USE) && begun.elapsed() < STARTS => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                ended => return ended,
            }
        }
    }

    fn start(&mut self, form: Form) -> Result<(), String> {
        let mut command = Command::new(BINARY);
        command.arg("mount");
        for lower in &self.lowers {
            command.arg("--lower").arg(lower);
        }
        command.arg("--upper").arg(&self.upper);
        command.arg("--work").arg(&self.work);
        let mut options = String::from(if form.char_marks {
            "whiteout=char"
        } else {
            "whiteout=wh"
        });
        options.push_str(if form.redirect {
            ",redirect_dir=on"
        } else {
            ",redirect_dir=off"
        });
        if !form.sync {
            options.push_str(",volatile");
        }
        if let Ok(transport) = std::env::var("UNIONMOUNT_TEST_TRANSPORT")
            && !transport.is_empty()
        {
            options.push_str(",transport=");
            options.push_str(&transport);
        }
        command.arg("-o").arg(options).arg(&self.point);
        self.run(&mut command)?;
        self.tree = Some(Plain::open(&self.point, &self.absent));
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.tree.take().is_some() {
            let mut command = Command::new(BINARY);
            if self.run(command.arg("umount").arg(&self.point)).is_err() {
                let mut command = Command::new(BINARY);
                let lazily = command.arg("umount").arg("--lazy").arg(&self.point);
                if let Err(error) = self.run(lazily) {
                    eprintln!("left mounted: {error}");
                }
            }
        }
    }
}

/// Gives this thread, and the daemons that it starts, mounts of their own: a mount that another
/// process takes along into a namespace of its own would keep the daemon alive after the unmount.
pub fn separate() {
    #[expect(unsafe_code, reason = "unshare(2) could unshare descriptors, too")]
    // SAFETY: descriptors stay shared; only the table of mounts (and with it the working directory
    // and the umask, which are what they were) becomes this thread's own.
    let separated = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if let Err(error) = separated.and_then(|()| mount_change("/", private)) {
        eprintln!("mounts are shared with other programs: {error}");
    }
}
