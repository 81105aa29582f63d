//! Whether FUSE over io_uring can be used here.

use std::io;
use std::path::Path;

use super::{cpu, ring::Ring};

/// The fuse module's switch.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// Whether a mount made now could use FUSE over io_uring.
///
/// # Errors
/// Why not, in one line that names the cure where there is one.
pub(crate) fn usable() -> Result<(), String> {
    switched_on(Path::new(SWITCH))?;
    // As many queues as that must be served, so it must be known.
    cpu::possible().map_err(|error| format!("cannot count the processors: {error}"))?;
    match Ring::new(0) {
        Ok(_ring) => Ok(()),
        Err(error) => Err(refused(&error)),
    }
}

fn switched_on(switch: &Path) -> Result<(), String> {
    match std::fs::read_to_string(switch) {
        Ok(value) if matches!(value.trim(), "Y" | "y" | "1") => Ok(()),
        Ok(_) => Err(format!(
            "it is switched off (as root: echo Y > {})",
            switch.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("the kernel has no FUSE over io_uring (Linux 6.14 has it)".into())
        }
        Err(error) => Err(format!("{}: {error}", switch.display())),
    }
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here (sysctl kernel.io_uring_disabled, or a seccomp filter)"
                .into()
        }
        Some(libc::ENOSYS) => "the kernel has no io_uring, or a seccomp filter hides it".into(),
        Some(libc::ENOMEM) => {
            "no memory for a ring (ulimit -l, or the control group's limit)".into()
        }
        Some(libc::EINVAL) => "the kernel's io_uring is too old (6.1 is needed)".into(),
        _ => format!("cannot make a ring: {error}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_switch_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let switch = dir.path().join("enable_uring");
        assert!(switched_on(&switch).unwrap_err().contains("6.14"));
        for (value, on) in [("Y\n", true), ("1\n", true), ("N\n", false), ("", false)] {
            std::fs::write(&switch, value).unwrap();
            assert_eq!(switched_on(&switch).is_ok(), on, "{value:?}");
        }
    }

    #[test]
    fn a_refusal_is_one_line() {
        for errno in [
            libc::EPERM,
            libc::ENOSYS,
            libc::ENOMEM,
            libc::EINVAL,
            libc::EMFILE,
        ] {
            let text = refused(&io::Error::from_raw_os_error(errno));
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        if let Err(reason) = usable() {
            assert_eq!(reason.lines().count(), 1, "{reason}");
        }
    }
}
