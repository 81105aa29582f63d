//! Who has a directory in use as a layer: its marks must not change under a mount.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The mounts and processes that use a directory, one line each: kernel overlayfs mounts that name
/// it, and daemons that hold it open. Only what the caller may look at is found.
#[must_use]
pub(crate) fn users_of(dir: &Path) -> Vec<String> {
    let Ok(wanted) = std::fs::metadata(dir).map(|found| (found.dev(), found.ino())) else {
        return Vec::new();
    };
    let is_it = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == wanted)
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut users: Vec<_> = mounts
        .lines()
        .filter(|line| layers_of(line).any(|layer| is_it(Path::new(layer))))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|at| format!("the overlay mount {at}"))
        .collect();
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in entries {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if !["unionmount", "fuse-overlayfs"].contains(&name.trim_end()) {
            continue;
        }
        let fds = std::fs::read_dir(process.path().join("fd"));
        if fds
            .into_iter()
            .flatten()
            .flatten()
            .any(|fd| is_it(&fd.path()))
        {
            users.push(format!("process {pid} ({})", name.trim_end()));
        }
    }
    users
}

/// The directories that a line of mountinfo names, when it is one of kernel overlayfs.
fn layers_of(line: &str) -> impl Iterator<Item = &str> {
    let options = line
        .split_once(" - overlay ")
        .map_or("", |(_, options)| options);
    options
        .split([',', ' '])
        .filter_map(|option| {
            option
                .strip_prefix("upperdir=")
                .or_else(|| option.strip_prefix("lowerdir="))
                .or_else(|| option.strip_prefix("lowerdir+="))
        })
        .flat_map(|list| list.split(':'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn layers_are_read_from_mountinfo() {
        let line = "36 25 0:45 / /m rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/w";
        let found: Vec<_> = layers_of(line).collect();
        assert_eq!(found, ["/a", "/b", "/c"]);
        assert_eq!(layers_of("36 25 0:45 / /m rw - ext4 /dev/x rw").count(), 0);
    }

    #[test]
    fn nobody_uses_a_new_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(users_of(dir.path()).is_empty());
        assert!(users_of(&dir.path().join("none")).is_empty());
    }
}
