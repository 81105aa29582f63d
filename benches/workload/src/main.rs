//! The driver behind `scripts/bench.sh`: small workloads that are timed from
//! the inside, so that neither a shell nor an interpreter is part of a figure.
//!
//! `workload NAME ARGS..` does one piece of work and prints how many seconds
//! it took. Only the work itself is timed, not what prepares it. The other
//! commands make the trees to work on and turn the collected figures into a
//! table. Without arguments it prints this list and does nothing.

mod chart;
mod crossing;
mod data;
mod names;
mod report;
mod trees;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The same numbers in every run, so that systems are compared on the same places of a file.
fn numbers() -> fastrand::Rng {
    fastrand::Rng::with_seed(1)
}

const USAGE: &str = "\
Timed, each prints seconds:
  time CMD ARGS..             run a command and read what it prints
  open-close FILE N           open and close one file N times
  open-read-close FILE N      the same with a read of 4 KiB
  stat FILE N                 stat one file N times
  readdir DIR N               list one directory N times
  create DIR N | rename DIR N | unlink DIR N
                              N empty files: make, rename, remove
  create-threads DIR N T      N files in all, made by T threads, each in its own directory
  append DIR                  one line to every file below DIR
  missing DIR N               stat N names that do not exist, each once
  seqread FILE | mmap FILE    all of a file, in 128 KiB reads or by page faults
  randread FILE N             N reads of 4 KiB at random places
  randwrite FILE N            N writes of 4 KiB at random places, then fsync
  seqwrite FILE MIB           a new file in 128 KiB writes, then fsync
  fsyncs FILE N               N times 4 KiB and fsync
  firstwrite FILE             one write of 4 KiB into the middle of a file
Timed, prints microseconds of time and of processor time for one request:
  crossing miss DIR N T PID   T clients ask for N names each that do not exist; PID is the daemon
  crossing getattr FILE N T PID
                              T clients ask for the attributes of an open file that are not cached
Not timed:
  make-tree PERCENT DIR..     the tree of 57 k entries, dealt over the given layers
  make-deep DIR..             a small tree of C headers over many layers
  make-c DIR N                a C project of N units
  make-rust DIR N             a Rust crate of N modules
  make-sql FILE N             N transactions for sqlite3(1)
  make-files DIR N            N small files in directories of 100
  make-data FILE MIB          a file without holes
  crossings RESULTS SYSTEM..  the same of what `crossing` printed
  report ROWS RESULTS SYSTEM..  a Markdown table of medians and ratios
  chart TITLE ROWS RESULTS SYSTEM..  the same as a bar chart (SVG, logarithmic)";

/// Bytes of a page.
const PAGE: u64 = 4096;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload {}: {error}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Outcome<()> {
    let Some((name, rest)) = args.split_first() else {
        println!("{USAGE}");
        return Ok(());
    };
    if let ("crossing", [kind, path, n, clients, pid]) = (name.as_str(), rest) {
        return crossing::crossing(kind, path, n.parse()?, clients.parse()?, pid);
    }
    let seconds = match (name.as_str(), rest) {
        // What `cargo bench` and `cargo test --benches` pass.
        (option, _) if option.starts_with("--") => {
            println!("{USAGE}");
            return Ok(());
        }
        ("time", [command, args @ ..]) => names::time_command(command, args)?,
        ("open-close", [file, n]) => names::open_close(file, n.parse()?)?,
        ("open-read-close", [file, n]) => names::open_read_close(file, n.parse()?)?,
        ("stat", [file, n]) => names::stat(file, n.parse()?)?,
        ("readdir", [dir, n]) => names::readdir(dir, n.parse()?)?,
        ("create", [dir, n]) => names::create(Path::new(dir), n.parse()?)?,
        ("rename", [dir, n]) => names::rename(Path::new(dir), n.parse()?)?,
        ("unlink", [dir, n]) => names::unlink(Path::new(dir), n.parse()?)?,
        ("create-threads", [dir, n, threads]) => {
            names::create_threads(Path::new(dir), n.parse()?, threads.parse()?)?
        }
        ("append", [dir]) => names::append(Path::new(dir))?,
        ("missing", [dir, n]) => names::missing(Path::new(dir), n.parse()?)?,
        ("seqread", [file]) => data::sequential_read(file)?,
        ("mmap", [file]) => data::mapped_read(file)?,
        ("randread", [file, n]) => data::random_read(file, n.parse()?)?,
        ("randwrite", [file, n]) => data::random_write(file, n.parse()?)?,
        ("seqwrite", [file, mib]) => data::sequential_write(file, mib.parse()?)?,
        ("fsyncs", [file, n]) => data::fsyncs(file, n.parse()?)?,
        ("firstwrite", [file]) => data::first_write(file)?,
        ("make-tree", [percent, layers @ ..]) if !layers.is_empty() => {
            return trees::make_tree(percent.parse()?, layers);
        }
        ("make-deep", layers) if !layers.is_empty() => return trees::make_deep(layers),
        ("make-files", [dir, n]) => return trees::make_files(Path::new(dir), n.parse()?),
        ("make-data", [file, mib]) => return trees::make_data(file, mib.parse()?),
        ("make-c", [dir, n]) => return trees::make_c(Path::new(dir), n.parse()?),
        ("make-rust", [dir, n]) => return trees::make_rust(Path::new(dir), n.parse()?),
        ("make-sql", [file, n]) => return trees::make_sql(Path::new(file), n.parse()?),
        ("chart", [title, rows, results, systems @ ..]) => {
            return chart::chart(title, rows, results, systems);
        }
        ("crossings", [results, systems @ ..]) => return report::crossings(results, systems),
        ("report", [rows, results, systems @ ..]) => return report::report(rows, results, systems),
        _ => return Err("unknown command or wrong number of arguments".into()),
    };
    println!("{seconds:.6}");
    Ok(())
}

/// Runs `work` and returns the seconds it took on the monotonic clock.
fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}
