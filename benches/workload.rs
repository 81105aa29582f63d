//! The driver behind `scripts/bench.sh`: small workloads that are timed from
//! the inside, so that neither a shell nor an interpreter is part of a figure.
//!
//! `workload NAME ARGS..` does one piece of work and prints how many seconds
//! it took. Only the work itself is timed, not what prepares it. The other
//! commands make the trees to work on and turn the collected figures into a
//! table. Without arguments it prints this list and does nothing, so that
//! `cargo bench` has nothing to wait for.
//!
//! It uses the standard library alone and can be built with `rustc -O`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

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
  make-tree PERCENT DIR..     the tree of 45 k entries, dealt over the given layers
  make-deep DIR..             a small tree over many layers
  make-files DIR N            N small files in directories of 100
  make-data FILE MIB          a file without holes
  crossings RESULTS SYSTEM..  the same of what `crossing` printed
  report ROWS RESULTS SYSTEM..  a Markdown table of medians and ratios";

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
        return crossing(kind, path, n.parse()?, clients.parse()?, pid);
    }
    let seconds = match (name.as_str(), rest) {
        // What `cargo bench` and `cargo test --benches` pass.
        (option, _) if option.starts_with("--") => {
            println!("{USAGE}");
            return Ok(());
        }
        ("time", [command, args @ ..]) => time_command(command, args)?,
        ("open-close", [file, n]) => open_close(file, n.parse()?)?,
        ("open-read-close", [file, n]) => open_read_close(file, n.parse()?)?,
        ("stat", [file, n]) => stat(file, n.parse()?)?,
        ("readdir", [dir, n]) => readdir(dir, n.parse()?)?,
        ("create", [dir, n]) => create(Path::new(dir), n.parse()?)?,
        ("rename", [dir, n]) => rename(Path::new(dir), n.parse()?)?,
        ("unlink", [dir, n]) => unlink(Path::new(dir), n.parse()?)?,
        ("create-threads", [dir, n, threads]) => {
            create_threads(Path::new(dir), n.parse()?, threads.parse()?)?
        }
        ("append", [dir]) => append(Path::new(dir))?,
        ("missing", [dir, n]) => missing(Path::new(dir), n.parse()?)?,
        ("seqread", [file]) => sequential_read(file)?,
        ("mmap", [file]) => mapped_read(file)?,
        ("randread", [file, n]) => random_read(file, n.parse()?)?,
        ("randwrite", [file, n]) => random_write(file, n.parse()?)?,
        ("seqwrite", [file, mib]) => sequential_write(file, mib.parse()?)?,
        ("fsyncs", [file, n]) => fsyncs(file, n.parse()?)?,
        ("firstwrite", [file]) => first_write(file)?,
        ("make-tree", [percent, layers @ ..]) if !layers.is_empty() => {
            return make_tree(percent.parse()?, layers);
        }
        ("make-deep", layers) if !layers.is_empty() => return make_deep(layers),
        ("make-files", [dir, n]) => return make_files(Path::new(dir), n.parse()?),
        ("make-data", [file, mib]) => return make_data(file, mib.parse()?),
        ("crossings", [results, systems @ ..]) => return crossings(results, systems),
        ("report", [rows, results, systems @ ..]) => return report(rows, results, systems),
        _ => return Err("unknown command or wrong number of arguments".into()),
    };
    println!("{seconds:.6}");
    Ok(())
}

/// Runs `work` and gives the seconds it took on the monotonic clock.
fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

// ---------------------------------------------------------------- crossings

/// Requests of which each crosses to the daemon and back exactly once: time from the caller's view, and processor time
/// of daemon and callers together.
fn crossing(kind: &str, path: &str, n: u64, clients: u64, pid: &str) -> Outcome<()> {
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

/// Seconds that a process has spent in user and kernel mode, its threads that ended included (proc_pid_stat(5), in
/// ticks of 10 ms: long runs only).
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

// ---------------------------------------------------------------- names

/// Runs a command with its output read through a pipe. A pipe and not
/// /dev/null, since tar skips reading files when it writes to /dev/null.
fn time_command(command: &str, args: &[String]) -> Outcome<f64> {
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

fn open_close(file: &str, n: u64) -> Outcome<f64> {
    drop(File::open(file)?);
    timed(|| {
        for _ in 0..n {
            drop(File::open(file)?);
        }
        Ok(())
    })
}

fn open_read_close(file: &str, n: u64) -> Outcome<f64> {
    let mut buffer = [0; 4096];
    File::open(file)?.read_exact(&mut buffer)?;
    timed(|| {
        for _ in 0..n {
            File::open(file)?.read_exact(&mut buffer)?;
        }
        Ok(())
    })
}

fn stat(file: &str, n: u64) -> Outcome<f64> {
    fs::symlink_metadata(file)?;
    timed(|| {
        for _ in 0..n {
            fs::symlink_metadata(file)?;
        }
        Ok(())
    })
}

fn readdir(dir: &str, n: u64) -> Outcome<f64> {
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

fn create(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            File::create_new(dir.join(format!("file{i}")))?;
        }
        Ok(())
    })
}

fn rename(dir: &Path, n: u64) -> Outcome<f64> {
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

fn unlink(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            fs::remove_file(dir.join(format!("renamed{i}")))?;
        }
        Ok(())
    })
}

fn create_threads(dir: &Path, n: u64, threads: u64) -> Outcome<f64> {
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

fn append(dir: &Path) -> Outcome<f64> {
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

fn missing(dir: &Path, n: u64) -> Outcome<f64> {
    timed(|| {
        for i in 0..n {
            if fs::symlink_metadata(dir.join(format!("missing{i}"))).is_ok() {
                return Err("a missing name exists".into());
            }
        }
        Ok(())
    })
}

// ----------------------------------------------------------------- data

const CHUNK: usize = 128 << 10;
const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;

fn sequential_read(file: &str) -> Outcome<f64> {
    let mut buffer = vec![0; CHUNK];
    timed(|| {
        let mut file = File::open(file)?;
        while file.read(&mut buffer)? != 0 {}
        Ok(())
    })
}

fn random_read(file: &str, n: u64) -> Outcome<f64> {
    let mut buffer = [0; PAGE_LEN];
    let file = File::open(file)?;
    let pages = file.metadata()?.len() / PAGE;
    let mut random = Random::new();
    timed(|| {
        for _ in 0..n {
            file.read_exact_at(&mut buffer, random.below(pages) * PAGE)?;
        }
        Ok(())
    })
}

fn random_write(file: &str, n: u64) -> Outcome<f64> {
    let buffer = [b'w'; PAGE_LEN];
    let file = OpenOptions::new().write(true).open(file)?;
    let pages = file.metadata()?.len() / PAGE;
    let mut random = Random::new();
    timed(|| {
        for _ in 0..n {
            file.write_all_at(&buffer, random.below(pages) * PAGE)?;
        }
        file.sync_all()?;
        Ok(())
    })
}

fn sequential_write(file: &str, mib: u64) -> Outcome<f64> {
    let buffer = vec![b's'; CHUNK];
    timed(|| {
        let mut file = File::create_new(file)?;
        for _ in 0..mib * 8 {
            file.write_all(&buffer)?;
        }
        file.sync_all()?;
        Ok(())
    })
}

fn fsyncs(file: &str, n: u64) -> Outcome<f64> {
    let mut file = File::create_new(file)?;
    timed(|| {
        for _ in 0..n {
            file.write_all(&[b'f'; PAGE_LEN])?;
            file.sync_all()?;
        }
        Ok(())
    })
}

fn first_write(file: &str) -> Outcome<f64> {
    let middle = fs::metadata(file)?.len() / 2;
    timed(|| {
        let file = OpenOptions::new().write(true).open(file)?;
        file.write_all_at(&[b'x'; PAGE_LEN], middle)?;
        Ok(())
    })
}

fn mapped_read(file: &str) -> Outcome<f64> {
    let file = File::open(file)?;
    let len = usize::try_from(file.metadata()?.len())?;
    timed(|| {
        let sum = mapping::touch_every_page(&file, len)?;
        std::hint::black_box(sum);
        Ok(())
    })
}

/// A mapping needs two calls that the standard library does not offer, and a
/// crate would keep this program from being built by `rustc` alone.
mod mapping {
    #![allow(unsafe_code)]

    use std::ffi::{c_int, c_void};
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    unsafe extern "C" {
        fn mmap(
            addr: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(addr: *mut c_void, len: usize) -> c_int;
    }

    const PROT_READ: c_int = 1;
    const MAP_SHARED: c_int = 1;

    /// Maps `len` bytes of `file` and reads one byte of each page.
    pub(crate) fn touch_every_page(file: &File, len: usize) -> io::Result<u64> {
        // SAFETY: a new shared read-only mapping at an address of the kernel's
        // choice touches no memory of this program.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                PROT_READ,
                MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let mut sum = 0;
        for offset in (0..len).step_by(super::PAGE_LEN) {
            // SAFETY: `offset` is below `len`, which is all mapped until the
            // munmap below; nobody shortens the file meanwhile.
            sum += u64::from(unsafe { start.cast::<u8>().add(offset).read_volatile() });
        }
        // SAFETY: exactly the mapping made above, no reference into it is left.
        if unsafe { munmap(start, len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(sum)
    }
}

/// xorshift64: the same sequence in every run, so that systems are compared on
/// the same places of a file.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Random(0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

// ---------------------------------------------------------------- trees

/// Deals the tree of about 45,000 entries (at 100 percent) over the layers:
///
/// * `wide/`: 300 directories that exist in every layer, 100 empty files each;
/// * `small/`: 15,000 files of 0.1 to 8 KiB in 100 directories;
/// * `one/`: a directory of 1,000 files and the file `cached` of 4 KiB.
///
/// Passing the same directory several times gives the merged tree itself.
fn make_tree(percent: u64, layers: &[String]) -> Outcome<()> {
    let layers: Vec<&Path> = layers.iter().map(Path::new).collect();
    let mut random = Random::new();
    let mut turn = layers.iter().cycle();
    let mut next_layer = || turn.next().copied().ok_or("no layers");
    for layer in &layers {
        for dir in 0..3 * percent {
            fs::create_dir_all(layer.join(format!("wide/dir{dir}")))?;
        }
        for dir in 0..percent {
            fs::create_dir_all(layer.join(format!("small/dir{dir}")))?;
        }
        fs::create_dir_all(layer.join("one"))?;
    }
    for dir in 0..3 * percent {
        for file in 0..100 {
            File::create_new(next_layer()?.join(format!("wide/dir{dir}/file{file}")))?;
        }
    }
    for dir in 0..percent {
        for file in 0..150 {
            let path = next_layer()?.join(format!("small/dir{dir}/file{file}.c"));
            fs::write(path, text(100 + random.below(8 << 10), &mut random)?)?;
        }
    }
    for file in 0..1000 {
        File::create_new(next_layer()?.join(format!("one/file{file}")))?;
    }
    fs::write(next_layer()?.join("one/cached"), text(PAGE, &mut random)?)?;
    Ok(())
}

/// 40 directories that all layers have; each layer brings one file to each.
fn make_deep(layers: &[String]) -> Outcome<()> {
    for (number, layer) in layers.iter().enumerate() {
        for dir in 0..40 {
            let dir = Path::new(layer).join(format!("dir{dir}"));
            fs::create_dir_all(&dir)?;
            File::create_new(dir.join(format!("file{number}")))?;
        }
    }
    Ok(())
}

fn make_files(dir: &Path, n: u64) -> Outcome<()> {
    let mut random = Random::new();
    for i in 0..n {
        let dir = dir.join(format!("dir{}", i / 100));
        if i % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let length = 100 + random.below(8 << 10);
        fs::write(dir.join(format!("file{i}.txt")), text(length, &mut random)?)?;
    }
    Ok(())
}

/// Lines of hexadecimal digits: neither empty nor compressible to nothing.
fn text(length: u64, random: &mut Random) -> Outcome<String> {
    let mut text = String::new();
    let length = usize::try_from(length)?;
    while text.len() < length {
        text.push_str(&format!("{:016x}\n", random.next()));
    }
    text.truncate(length);
    Ok(text)
}

fn make_data(file: &str, mib: u64) -> Outcome<()> {
    let mut random = Random::new();
    let mut file = File::create_new(file)?;
    for _ in 0..mib {
        let block: Vec<u8> = (0..1 << 17)
            .flat_map(|_| random.next().to_le_bytes())
            .collect();
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

// --------------------------------------------------------------- report

/// The system that the others are measured by.
const YARDSTICK: &str = "overlay";

/// Prints a Markdown table. `rows` has lines of `id<TAB>title`, `results` lines
/// of `id<TAB>system<TAB>seconds`; a cell is the ratio of medians to the
/// yardstick's, or `-` where a system has no figure.
fn report(rows: &str, results: &str, systems: &[String]) -> Outcome<()> {
    let mut figures: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    let results = fs::read_to_string(results)?;
    for line in results.lines() {
        let mut fields = line.split('\t');
        let (Some(row), Some(system), Some(seconds)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("not a result: {line:?}").into());
        };
        figures
            .entry((row, system))
            .or_default()
            .push(seconds.parse()?);
    }
    let medians: BTreeMap<_, _> = figures
        .iter_mut()
        .filter_map(|(key, values)| Some((*key, median(values)?)))
        .collect();
    let by_ratio = systems.iter().any(|system| system == YARDSTICK);

    if by_ratio {
        print!("| work | {YARDSTICK}, seconds |");
    } else {
        print!("| work |");
    }
    for system in systems.iter().filter(|system| *system != YARDSTICK) {
        print!(" {system} |");
    }
    print!("\n| --- |");
    for _ in systems {
        print!(" ---: |");
    }
    println!();

    let mut products: BTreeMap<&str, (f64, i32)> = BTreeMap::new();
    for line in fs::read_to_string(rows)?.lines() {
        let (row, title) = line.split_once('\t').unwrap_or((line, line));
        let yardstick = medians.get(&(row, YARDSTICK)).copied();
        print!("| {title} |");
        if by_ratio {
            match yardstick {
                Some(seconds) => print!(" {seconds:.4} |"),
                None => print!(" - |"),
            }
        }
        for system in systems.iter().filter(|system| *system != YARDSTICK) {
            match (medians.get(&(row, system.as_str())), yardstick) {
                (Some(seconds), Some(yardstick)) if yardstick > 0.0 => {
                    let ratio = seconds / yardstick;
                    let product = products.entry(system).or_insert((0.0, 0));
                    product.0 += ratio.ln();
                    product.1 += 1;
                    print!(" {} |", significant(ratio));
                }
                (Some(seconds), _) => print!(" {seconds:.4} s |"),
                (None, _) => print!(" - |"),
            }
        }
        println!();
    }
    if by_ratio {
        print!("| **geometric mean** | 1 |");
        for system in systems.iter().filter(|system| *system != YARDSTICK) {
            match products.get(system.as_str()) {
                Some((logs, count)) => {
                    let mean = (logs / f64::from(*count)).exp();
                    print!(" **{}** of {count} rows |", significant(mean));
                }
                None => print!(" - |"),
            }
        }
        println!();
    }
    Ok(())
}

/// Lines of `request clients system time processor-time` in, a table out.
fn crossings(results: &str, systems: &[String]) -> Outcome<()> {
    type Figures = (Vec<f64>, Vec<f64>);
    let mut rows: BTreeMap<(String, u64), BTreeMap<String, Figures>> = BTreeMap::new();
    for line in fs::read_to_string(results)?.lines() {
        let [kind, clients, system, time, cpu] = line.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return Err(format!("not a line of figures: {line}").into());
        };
        let row = rows.entry((kind.to_owned(), clients.parse()?)).or_default();
        let figures = row.entry(system.to_owned()).or_default();
        figures.0.push(time.parse()?);
        figures.1.push(cpu.parse()?);
    }
    print!("| one request, us of time (of processor) |");
    for system in systems {
        print!(" {system} |");
    }
    println!("\n| --- |{}", " ---: |".repeat(systems.len()));
    for ((kind, clients), mut row) in rows {
        print!("| {kind}, clients: {clients} |");
        for system in systems {
            let figures = row.remove(system).unwrap_or_default();
            let (mut time, mut cpu) = figures;
            match (median(&mut time), median(&mut cpu)) {
                (Some(time), Some(cpu)) => print!(" {time:.1} ({cpu:.1}) |"),
                _ => print!(" - |"),
            }
        }
        println!();
    }
    Ok(())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(middle).copied()
    } else {
        Some((values.get(middle.checked_sub(1)?)? + values.get(middle)?) / 2.0)
    }
}

/// Two digits are what repeated runs agree on.
fn significant(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}")
    } else if ratio >= 1.0 {
        format!("{ratio:.1}")
    } else {
        format!("{ratio:.2}")
    }
}
