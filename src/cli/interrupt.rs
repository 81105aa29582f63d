//! Ctrl-C, and whatever else asks a command to end: what it has begun is taken back, and it ends by the signal.

use std::time::{Duration, Instant};

use super::exit::{Failure, complain};
use crate::sys::signals::{Termination, name};
use crate::undo;

/// A signal that comes so soon after the first is the same once more: timeout(1) sends it to a process and to its group, and a
/// shell forwards what the terminal has sent already.
const SAME: Duration = Duration::from_secs(1);

/// From now on SIGINT, SIGTERM and SIGHUP are answered by taking back what is under way (see [`undo`]); another one, a second
/// later, ends the process at once. First thing in a process, before it has threads, and not in one that becomes a daemon.
///
/// # Errors
/// No thread can be started.
pub fn watch() -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Operation(format!(
            "cannot wait for signals: {error}; free memory or processes"
        ))
    };
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
        let ending = std::thread::Builder::new()
            .name("interrupted".to_owned())
            .spawn(move || end(termination, signal));
        if ending.is_err() {
            end(termination, signal);
        }
    }
}

fn end(termination: Termination, signal: i32) -> ! {
    let left = undo::all(|| {
        complain(&format!(
            "{}: waiting for the end of a step that cannot be taken back; once more ends the command at once",
            name(signal)
        ));
    });
    let left = match left.is_empty() {
        true => "what was not complete is removed".to_owned(),
        false => format!("this stays, remove it: {}", left.join("; ")),
    };
    complain(&format!("interrupted by {}; {left}", name(signal)));
    termination.die(signal)
}
