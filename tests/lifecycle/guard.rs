//! What sees to it that a test ends, and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use support::{Mount, Running, Stack, binary, programs, transport};

/// How long anything may take that should happen at once, on a machine that has other things to do.
pub const SOON: Duration = Duration::from_secs(10);

/// Runs a test over each transport, within a time.
pub fn on_each(seconds: u64, test: impl Fn(&str, &mut Limit)) {
    for name in transport::transports() {
        on(name, seconds, &test);
    }
}

/// Runs a test over one transport, within a time.
pub fn on(name: &str, seconds: u64, test: impl Fn(&str, &mut Limit)) {
    println!("-- transport={name}");
    let mut limit = Limit::new(Duration::from_secs(seconds));
    test(name, &mut limit);
    limit.end();
}

/// A stack of `lowers` layers that is mounted over a transport.
pub fn stack(transport: &str, lowers: usize) -> Stack {
    Stack::new(lowers).option(&format!("transport={transport}"))
}

/// A connection to abort: its number and the process that serves it, by which a later one of the
/// same number is told.
type Watched = (u32, i32);

/// Aborts the mounts it was shown when the time is over: then no process waits any more, and the
/// test fails.
pub struct Limit {
    tell: Sender<Watched>,
    over: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Limit {
    fn new(time: Duration) -> Self {
        let (tell, told) = channel::<Watched>();
        let over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&over);
        let watcher = std::thread::spawn(move || {
            let deadline = Instant::now() + time;
            let mut watched = Vec::new();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match told.recv_timeout(left) {
                    Ok(one) => watched.push(one),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
            flag.store(true, Ordering::SeqCst);
            eprintln!("the test takes longer than {time:?}: aborting its mounts");
            for (connection, pid) in watched {
                if transport::serves(pid, connection) {
                    eprintln!("daemon {pid}: {:#?}", threads(pid));
                    transport::abort(connection);
                }
            }
        });
        Self {
            tell,
            over,
            watcher: Some(watcher),
        }
    }

    /// Mounts a stack, under the limit.
    pub fn mount(&self, stack: &Stack) -> Mount {
        let mount = stack.mount();
        self.watch(&mount);
        mount
    }

    /// Puts a mount under the limit.
    pub fn watch(&self, mount: &Mount) {
        let watched = (mount.connection.unwrap(), mount.pid.unwrap());
        // A watcher that is gone has found the time to be over.
        let _told = self.tell.send(watched);
    }

    fn end(mut self) {
        let watcher = self.watcher.take().unwrap();
        let over = Arc::clone(&self.over);
        drop(self);
        watcher.join().unwrap();
        assert!(!over.load(Ordering::SeqCst), "the time was over");
    }
}

/// What the threads of a daemon do, for who looks into a failure: name, state, where in the kernel
/// it waits, how many.
fn threads(pid: i32) -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let part = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let state = part("stat")
            .rsplit_once(") ")
            .map_or_else(String::new, |(_, rest)| rest[..1].into());
        let line = format!("{} {state} {}", part("comm").trim(), part("wchan").trim());
        *threads.entry(line).or_default() += 1;
    }
    threads
}

/// Waits for a condition that must come true soon.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary())
}

pub fn wait_for_end(mount: &Mount) {
    let pid = mount.pid.unwrap();
    wait_until("the daemon ends", || !alive(pid));
}

pub fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A daemon that does not answer, until this is dropped.
pub struct Stopped(pub i32);

impl Stopped {
    pub fn new(mount: &Mount) -> Self {
        let pid = mount.pid.unwrap();
        signal(pid, Signal::STOP);
        wait_until("all threads of the daemon are stopped", || {
            std::fs::read_dir(format!("/proc/{pid}/task"))
                .unwrap()
                .flatten()
                .all(|task| {
                    std::fs::read_to_string(task.path().join("stat"))
                        .is_ok_and(|stat| stat.contains(") T "))
                })
        });
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _gone = kill_process(Pid::from_raw(self.0).unwrap(), Signal::CONT);
    }
}

/// A command that must end within a minute.
pub fn bounded(program: &str) -> Command {
    let here = program.contains('/') || programs::find(program).is_some();
    assert!(here, "{}", programs::missing(program));
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", program]);
    command
}

/// What `unionmount umount` says.
pub fn umount(at: &Path, arguments: &[&str]) -> Output {
    let mut command = bounded(binary().to_str().unwrap());
    command.arg("umount").args(arguments).arg(at);
    command.output().unwrap()
}

/// Makes, reads, renames and removes files below a directory until it is told to end or something
/// fails, and then says how often and why.
const LOAD: &str = r#"
import os, signal, sys
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
me, done = sys.argv[1], 0
os.write(1, b'\n')
try:
    # A directory of its own: in the same one the kernel lets one wait for the other.
    os.mkdir('load-' + me); os.chdir('load-' + me)
    while not ended:
        name = f'load-{me}-{done % 20}'
        with open(name, 'w') as f: f.write(name * 50)
        with open(name) as f: assert f.read() == name * 50
        os.rename(name, name + '.new')
        os.listdir('.')
        assert not os.path.exists(name)
        os.unlink(name + '.new')
        done += 1
    os.rmdir('../load-' + me)
    print(done, 'ended')
except OSError as error:
    print(done, error.errno)
"#;

/// A process that keeps a mount busy.
pub struct Load(Running, BufReader<ChildStdout>);

impl Load {
    /// Starts it in a directory, on `cpu` if that is named.
    pub fn start(at: &Path, me: &str, cpu: Option<usize>) -> Self {
        let mut command = match cpu {
            Some(cpu) => {
                let mut command = support::programs::program("taskset");
                command.args(["-c", &cpu.to_string(), "python3"]);
                command
            }
            None => support::programs::program("python3"),
        };
        let mut child: Child = command
            .args(["-c", LOAD, me])
            .current_dir(at)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let load = Running(child);
        // From here on it can be told to end.
        stdout.read_line(&mut String::new()).unwrap();
        Self(load, stdout)
    }

    pub fn tell_to_end(&self) {
        signal(self.0.0.id().cast_signed(), Signal::TERM);
    }

    /// Waits for its end; gives the rounds it made, and the errno with which it ended if that was
    /// not by request.
    pub fn result(mut self) -> (u64, Option<i32>) {
        let started = Instant::now();
        while self.0.0.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < SOON, "the load does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = String::new();
        self.1.read_to_string(&mut said).unwrap();
        let mut complaint = String::new();
        let mut stderr = self.0.0.stderr.take().unwrap();
        stderr.read_to_string(&mut complaint).unwrap();
        let (rounds, reason) = said
            .trim()
            .split_once(' ')
            .unwrap_or_else(|| panic!("the load said: {said} {complaint}"));
        (rounds.parse().unwrap(), reason.parse().ok())
    }

    /// Ends it; it must not have met an error. Gives the rounds it made.
    pub fn end(self) -> u64 {
        self.tell_to_end();
        let (rounds, error) = self.result();
        assert_eq!(error, None, "after {rounds} rounds");
        rounds
    }
}
