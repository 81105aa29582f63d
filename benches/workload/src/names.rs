//! Work on names: opening, listing, making, renaming, removing.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Outcome, timed};

/// Runs a command with its output read through a pipe. A pipe and not
/// /dev/null, since tar skips reading files when it writes to /dev/null.
pub(crate) fn time_command(command: &str, args: &[String]) -> Outcome<f64> {
    timed(|| {
        let mut child = Command::new(command)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut output) = child.stdout.take() {
            let mut buffer = vec![0; 256 << 10];
            while output.read(&mut buffer)? != 0 {}
        }
        let status = child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{command}: {status}").into())
        }
    })
}

pub(crate) fn open_close(file: &str, n: u64) -> Outcome<f64> {
    drop(File::open(file)?);
    timed(|| {
        for _ in 0..n {
            drop(File::open(file)?);
        }
        Ok(())
    })
}

pub(crate) fn open_read_close(file: &str, n: u64) -> Outcome<f64> {
    let mut buffer = [0; 4096];
    File::open(file)?.read_exact(&mut buffer)?;
    timed(|| {
        for _ in 0..n {
            File::open(file)?.read_exact(&mut buffer)?;
        }
        Ok(())
    })
}

pub(crate) fn stat(file: &str, n: u64) -> Outcome<f64> {
    fs::symlink_metadata(file)?;
    timed(|| {
        for _ in 0..n {
            fs::symlink_metadata(file)?;
        }
        Ok(())
    })
}

pub(crate) fn readdir(dir: &str, n: u64) -> Outcome<f64> {
    let expected = fs::read_dir(dir)?.count();
    timed(|| {
        for _ in 0..n {
            let mut seen = 0;
            for entry in fs::read_dir(dir)? {
                entry?;
                seen += 1;
            }
            if seen != expected {
                return Err(format!("{dir}: {seen} entries, then {expected}").into());
            }
        }
        Ok(())
    })
}

pub(crate) fn create(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            File::create_new(dir.join(format!("file{i}")))?;
        }
        Ok(())
    })
}

pub(crate) fn rename(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            fs::rename(
                dir.join(format!("file{i}")),
                dir.join(format!("renamed{i}")),
            )?;
        }
        Ok(())
    })
}

pub(crate) fn unlink(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            fs::remove_file(dir.join(format!("renamed{i}")))?;
        }
        Ok(())
    })
}

pub(crate) fn create_threads(dir: &Path, n: u64, threads: u64) -> Outcome<f64> {
    let mut dirs = Vec::new();
    for i in 0..threads {
        let own = dir.join(format!("thread{i}"));
        fs::create_dir(&own)?;
        dirs.push(own);
    }
    timed(|| {
        std::thread::scope(|scope| {
            let workers: Vec<_> = dirs
                .iter()
                .map(|own| {
                    scope.spawn(move || -> Result<(), std::io::Error> {
                        for i in 0..n / threads {
                            File::create_new(own.join(format!("file{i}")))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| "a thread panicked")??;
            }
            Ok(())
        })
    })
}

pub(crate) fn append(dir: &Path) -> Outcome<f64> {
    let mut files = Vec::new();
    walk(dir, &mut files)?;
    timed(|| {
        for file in &files {
            OpenOptions::new()
                .append(true)
                .open(file)?
                .write_all(b"one more line\n")?;
        }
        Ok(())
    })
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

pub(crate) fn missing(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            if fs::symlink_metadata(dir.join(format!("missing{i}"))).is_ok() {
                return Err("a missing name exists".into());
            }
        }
        Ok(())
    })
}
