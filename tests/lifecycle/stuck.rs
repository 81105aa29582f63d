//! Readers whose lower does not answer hold up no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::guard::{Limit, SOON, Stopped, on, stack, wait_until};
use support::transport::own_transports;
use support::{Mount, Stack, names, read};

/// Bytes of each slow file: more than what is read ahead when another one is read.
const SIZE: usize = 64 << 10;
/// How many requests of others are timed.
const OTHERS: usize = 100;
/// How long one of those may take. It comes at once but for what the machine does beside.
const ONE: Duration = SOON;

/// A union of a layer on the disk over one on another FUSE mount.
struct Slow {
    above: Mount,
    below: Mount,
    stack: Stack,
    _below: Stack,
}

impl Slow {
    fn new(transport: &str, files: usize, limit: &Limit) -> Self {
        let mut below = stack("dev", 1);
        below.without_directories = true;
        for i in 0..files {
            below.file(0, &format!("slow/{i}"), &content(i));
        }
        below.file(0, "slow/warm", "warm");
        let inner = limit.mount(&below);
        let mut stack = stack(transport, 2).option("threads=4");
        for i in 0..OTHERS {
            stack.file(0, &format!("fast/{i}"), &i.to_string());
        }
        stack.lowers[1] = inner.at.clone();
        let above = limit.mount(&stack);
        // All names are known before the lower falls silent, and that its files are opened without
        // a message.
        assert_eq!(names(above.path("slow")).len(), files + 1);
        for i in 0..files {
            assert_eq!(
                fs::metadata(above.path(format!("slow/{i}"))).unwrap().len(),
                SIZE as u64
            );
        }
        assert_eq!(read(above.path("slow/warm")), "warm");
        assert!(above.path("fast").exists());
        Self {
            above,
            below: inner,
            stack,
            _below: below,
        }
    }

    /// Reads the slow files, each by a thread of its own; gives their contents as they come.
    fn read_all(&self, files: usize, cpu: Option<usize>) -> Receiver<(usize, Vec<u8>)> {
        let (told, contents) = channel();
        for i in 0..files {
            let (told, path) = (told.clone(), self.above.path(format!("slow/{i}")));
            std::thread::spawn(move || {
                pin(cpu);
                // An error is found by what is missing in the end.
                if let Ok(bytes) = fs::read(path) {
                    let _test_is_over = told.send((i, bytes));
                }
            });
        }
        contents
    }

    /// Uses other files while the slow ones are waited for; gives the longest time that one request
    /// took.
    fn use_others(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for i in 0..OTHERS {
            let started = Instant::now();
            assert_eq!(read(self.above.path(format!("fast/{i}"))), i.to_string());
            assert!(!self.above.path(format!("fast/none-{i}")).exists());
            if i % 10 == 0 {
                fs::write(self.above.path(format!("fast/new-{i}")), "new").unwrap();
                assert!(names(self.above.path("fast")).len() > OTHERS);
            }
            longest = longest.max(started.elapsed());
        }
        longest
    }

    fn waiting(&self) -> usize {
        let number = self.above.connection.unwrap();
        let path = format!("/sys/fs/fuse/connections/{number}/waiting");
        read(path).trim().parse().unwrap()
    }

    /// All readers get what they asked for.
    fn assert_complete(contents: &Receiver<(usize, Vec<u8>)>, files: usize) {
        for _ in 0..files {
            let (i, bytes) = contents.recv_timeout(SOON).unwrap();
            assert!(bytes == content(i).as_bytes(), "{i}: other content");
        }
    }

    fn unmount(self) {
        self.above.unmount();
        self.stack.assert_work_is_empty();
        self.below.unmount();
    }
}

/// What is in a slow file.
fn content(i: usize) -> String {
    let number = format!("{i:>8}");
    number.repeat(SIZE / number.len())
}

/// Keeps the calling thread on a processor.
fn pin(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).unwrap();
    }
}

/// More readers than threads are stuck, all of which come at once; then another process works.
fn stuck_readers(transport: &str, limit: &Limit, files: usize, cpu: Option<usize>) {
    let slow = Slow::new(transport, files, limit);
    let stopped = Stopped::new(&slow.below);
    let contents = slow.read_all(files, cpu);
    wait_until("the readers wait", || slow.waiting() >= files);
    let longest = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(cpu);
            slow.use_others()
        });
        other.join().unwrap()
    });
    println!("{transport}: {files} stuck readers (CPU {cpu:?}); others waited {longest:?} at most");
    assert!(longest < ONE, "{longest:?}");
    // They were stuck all the time.
    assert!(contents.try_recv().is_err());
    assert!(slow.waiting() >= files);
    drop(stopped);
    Slow::assert_complete(&contents, files);
    slow.unmount();
}

// fuser has as many threads as it was given: each stuck reader takes one away
// (src/guide/transports.md).

#[test]
fn stuck_readers_hold_up_no_others() {
    support::need_fuse!();
    for transport in own_transports() {
        on(transport, 180, |name, limit| {
            stuck_readers(name, limit, 40, None)
        });
    }
}

#[test]
fn stuck_readers_on_one_processor_hold_up_no_others_there() {
    support::need_fuse!();
    for transport in own_transports() {
        on(transport, 180, |name, limit| {
            stuck_readers(name, limit, 40, Some(0))
        });
    }
}

#[test]
fn a_mount_with_stuck_readers_can_be_killed_and_aborted() {
    support::need_fuse!();
    for transport in own_transports() {
        on(transport, 180, |name, limit| {
            let slow = Slow::new(name, 12, limit);
            let stopped = Stopped::new(&slow.below);
            let contents = slow.read_all(12, None);
            wait_until("the readers wait", || slow.waiting() >= 12);
            support::transport::abort(slow.above.connection.unwrap());
            // The readers are freed, though the daemon's threads are still stuck below.
            let started = Instant::now();
            while !matches!(
                contents.try_recv(),
                Err(std::sync::mpsc::TryRecvError::Disconnected)
            ) {
                assert!(started.elapsed() < SOON, "readers are not freed");
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(stopped);
            super::guard::wait_for_end(&slow.above);
            let at: PathBuf = slow.above.at.clone();
            rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
            let again = limit.mount(&slow.stack);
            assert_eq!(read(again.path("slow/warm")), "warm");
            assert_eq!(read(again.path("slow/3")), content(3));
            again.unmount();
            assert!(Path::new(&slow.below.at).join("slow/3").exists());
            slow.below.unmount();
        });
    }
}
