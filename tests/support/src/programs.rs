//! The programs that tests run beside ours: one that is missing is named in one line, with its
//! package.

use std::path::PathBuf;
use std::process::Command;

/// What is needed, for what: see there.
const PACKAGES: &str = include_str!("../../../scripts/packages.txt");

/// A command of an installed program; the test ends with a line that names it where it is missing.
pub fn program(name: &str) -> Command {
    assert!(find(name).is_some(), "{}", missing(name));
    Command::new(name)
}

/// Where PATH has a program.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Where file systems are made and users are added.
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// What to say of a program that is missing.
pub fn missing(name: &str) -> String {
    let package = PACKAGES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().skip(1))
        .find_map(|mut words| {
            let package = words.next()?;
            words.any(|program| program == name).then_some(package)
        });
    match package {
        Some(package) => format!("{name} is missing: apt-get install {package}"),
        None => format!("{name} is missing"),
    }
}

/// What a shell says of a program that is missing, as [`missing`] says it.
pub fn missing_in(said: &str) -> Option<String> {
    let line = said
        .lines()
        .find_map(|line| line.strip_suffix(": command not found"))?;
    Some(missing(line.rsplit(": ").next()?))
}
