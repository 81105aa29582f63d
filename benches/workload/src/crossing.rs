//! What one request to the daemon costs.

use std::fs::{self, File};
use std::time::Instant;

use crate::Outcome;

/// Requests of which each crosses to the daemon and back exactly once: time from the caller's view,
/// and processor time of daemon and callers together.
pub(crate) fn crossing(kind: &str, path: &str, n: u64, clients: u64, pid: &str) -> Outcome<()> {
    let me = std::process::id().to_string();
    let before = processor_time(pid)? + processor_time(&me)?;
    let (seconds, spent) = std::thread::scope(|scope| {
        let start = Instant::now();
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || -> Result<(), String> {
                    let file = File::open(path).map_err(|error| error.to_string())?;
                    for i in 0..n {
                        let answer = match kind {
                            // Each name once: the kernel remembers that it is not there.
                            "miss" => fs::symlink_metadata(format!(
                                "{path}/{client}-{i}-{me}",
                                me = std::process::id()
                            )),
                            _ => file.metadata(),
                        };
                        if answer.is_ok() == (kind == "miss") {
                            return Err(format!("{kind}: an answer that cannot be"));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        let seconds = start.elapsed().as_secs_f64();
        (seconds, results)
    });
    for result in spent {
        result.map_err(|_| "a client panicked")??;
    }
    // The clients' threads are gone from /proc, but not from the time of the process.
    let cpu = processor_time(pid)? + processor_time(&me)? - before;
    let requests = (n * clients) as f64;
    println!(
        "{:.3} {:.3}",
        seconds * 1e6 / n as f64,
        cpu * 1e6 / requests
    );
    Ok(())
}

/// Seconds that a process has spent in user and kernel mode, its threads that ended included
/// (proc_pid_stat(5), in ticks of 10 ms: long runs only).
fn processor_time(pid: &str) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or("no name in /proc/PID/stat")?
        .1
        .split_whitespace()
        .collect();
    let ticks =
        |at: usize| -> Outcome<f64> { Ok(fields.get(at).ok_or("too few fields")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
