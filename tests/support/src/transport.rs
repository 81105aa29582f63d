//! Which transports there are here, and which one the suite is to run over.

use std::fs;
use std::path::Path;

/// The environment variable that names the transport of every mount whose test does not name one
/// itself.
const CHOSEN: &str = "UNIONMOUNT_TEST_TRANSPORT";
/// The fuse module's switch for io_uring.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// The option that the suite was asked to add to its mounts.
pub fn chosen() -> Option<String> {
    let name = std::env::var(CHOSEN).ok().filter(|name| !name.is_empty())?;
    assert!(
        ["dev", "uring", "fuser", "auto"].contains(&name.as_str()),
        "{CHOSEN}={name}: there is no such transport"
    );
    Some(format!("transport={name}"))
}

/// The options, and the suite's transport unless one is named among them.
pub fn with_chosen(options: &[String]) -> Vec<String> {
    let mut options = options.to_vec();
    let named = |option: &String| option.split(',').any(|part| part.starts_with("transport="));
    if !options.iter().any(named) {
        options.extend(chosen());
    }
    options
}

/// Whether the kernel lets daemons fetch requests by io_uring.
pub fn uring_is_here() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|value| matches!(value.trim(), "Y" | "1"))
}

/// The transports that work on this machine. Where `UNIONMOUNT_REQUIRE_FUSE` and
/// `UNIONMOUNT_REQUIRE_URING` are both 1, a machine without io_uring is a failure; else it is left
/// out, with a word.
pub fn transports() -> Vec<&'static str> {
    let mut names = vec!["dev", "fuser"];
    if uring_is_here() {
        names.push("uring");
        return names;
    }
    let set = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    assert!(
        !(set("UNIONMOUNT_REQUIRE_FUSE") && set("UNIONMOUNT_REQUIRE_URING")),
        "io_uring is required, but {SWITCH} is not Y"
    );
    eprintln!("without io_uring: {SWITCH} is not Y");
    names
}

/// Those of [`transports`] that are our own, which can do more than fuser.
pub fn own_transports() -> Vec<&'static str> {
    let mut names = transports();
    names.retain(|name| *name != "fuser");
    names
}

/// The transport of mounts that name none: what the suite was asked for, else what `auto` chooses.
pub fn usual() -> &'static str {
    match chosen().as_deref() {
        Some("transport=dev") => "dev",
        Some("transport=fuser") => "fuser",
        Some("transport=uring") => "uring",
        _ if uring_is_here() => "uring",
        _ => "dev",
    }
}

/// The minor device number of the mount at a path, which is also the number of its connection in
/// fusectl.
pub fn connection(at: &Path) -> Option<u32> {
    let at = at.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().rev().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let fuse = fields.iter().any(|field| field.starts_with("fuse."));
        (fuse && fields[4] == at).then(|| fields[2].split_once(':').unwrap().1.parse().unwrap())
    })
}

/// Ends a connection as `umount --force` does: a caller that waits for a reply gets an error. Fine
/// when it is gone.
pub fn abort(connection: u32) {
    let _gone = fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
}

/// Whether a process serves a connection.
pub fn serves(pid: i32, connection: u32) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        fs::read_to_string(entry.path()).is_ok_and(|text| {
            text.lines().any(|line| {
                line.strip_prefix("fuse_connection:")
                    .is_some_and(|number| number.trim() == connection.to_string())
            })
        })
    })
}
