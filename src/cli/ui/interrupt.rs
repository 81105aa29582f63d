//! Ctrl-C and the other signals that ask a command to end: what it has begun is removed, and it
//! ends by the signal.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::exit::{Failure, complain};
use crate::cancel::{self, Ending};
use crate::sync::lock;
use crate::sys::signals::{Termination, name};
use crate::sys::wake;

/// A signal that comes so soon after the first is the same once more: timeout(1) sends it to a
/// process and to its group, and a shell forwards what the terminal has sent already.
const SAME: Duration = Duration::from_secs(1);
/// How often a command is looked at that is to end.
const PAUSE: Duration = Duration::from_millis(10);
/// After so long a message says why nothing happens.
const PATIENCE: Duration = Duration::from_secs(1);

/// Clears what a command shows on the terminal.
type Clear = Box<dyn Fn() + Send>;

/// What is on the terminal while the command runs. Lock order: what clears it takes only the locks
/// of its own drawing under it.
static DISPLAY: Mutex<Option<Clear>> = Mutex::new(None);

/// While it lives, something is on the terminal that is cleared before the last line of a command
/// that is interrupted.
#[derive(Debug)]
pub(in crate::cli) struct Display(());

impl Display {
    /// There is one of them at a time.
    pub(in crate::cli) fn new(clear: impl Fn() + Send + 'static) -> Self {
        *lock(&DISPLAY) = Some(Box::new(clear));
        Self(())
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        *lock(&DISPLAY) = None;
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP are answered by cancelling the command (see [`cancel`]);
/// another one, a second later, ends the process at once. First thing in a process, before it has
/// threads, and not in one that becomes a daemon.
///
/// # Errors
/// No thread can be started.
pub(in crate::cli) fn watch() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Operation(format!(
            "cannot wait for signals: {error}; free memory or processes"
        ))
    };
    wake::enable().map_err(failed)?;
    let termination = Termination::block_unless_ignored().map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || answer(termination))
        .map_err(failed)?;
    Ok(())
}

fn answer(termination: Termination) {
    let mut first: Option<Instant> = None;
    loop {
        let signal = match termination.wait() {
            Ok(signal) => signal,
            Err(error) => return log::debug!("sigwait: {error}"),
        };
        match first {
            Some(first) if first.elapsed() < SAME => continue,
            Some(_) => termination.die(signal),
            None => first = Some(Instant::now()),
        }
        cancel::request();
        let ending = std::thread::Builder::new()
            .name("interrupted".to_owned())
            .spawn(move || end(termination, signal));
        if ending.is_err() {
            end(termination, signal);
        }
    }
}

/// Waits until the command may end, and ends it.
fn end(termination: Termination, signal: i32) -> ! {
    let begun = Instant::now();
    let mut is_told = false;
    let removed_dir = loop {
        match cancel::ending() {
            Ending::Now(removed_dir) => break removed_dir,
            Ending::Working => wake::wake_all(),
            Ending::Removing => {}
            Ending::Whole if !is_told && begun.elapsed() > PATIENCE => {
                is_told = true;
                complain(&format!(
                    "{}: waiting for the end of a step that cannot be taken back; send it once more to end the command at once",
                    name(signal)
                ));
            }
            Ending::Whole => {}
        }
        std::thread::sleep(PAUSE);
    };
    if let Some(clear) = &*lock(&DISPLAY) {
        clear();
    }
    let what = match removed_dir.is_empty() {
        true => "what was not complete is removed".to_owned(),
        false => format!("this stays, remove it: {}", removed_dir.join("; ")),
    };
    complain(&format!("interrupted by {}; {what}", name(signal)));
    termination.die(signal)
}
