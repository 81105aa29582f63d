//! In a user namespace: what `auto` and the transports do there, also where io_uring is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::guard::{bounded, on};
use support::binary;
use support::transport::{connection, transports, uring_is_here};

/// The overflow id, so that nothing else runs as it.
const USER: u32 = 64_321;

/// An ordinary user with a copy of the program.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("unionmount-user.")
            .tempdir_in("/var/tmp")
            .unwrap();
        std::os::unix::fs::chown(dir.path(), Some(USER), Some(USER)).unwrap();
        fs::copy(binary(), dir.path().join("unionmount")).unwrap();
        Self(dir)
    }

    /// Runs a script in new user and mount namespaces, after `prefix`; `$B` is the program, `$O`
    /// the transport.
    fn run(&self, prefix: &[&str], transport: &str, script: &str) -> Output {
        let id = USER.to_string();
        bounded("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(prefix)
            .args(["unshare", "-Urm", "bash", "-c", script])
            .current_dir(self.0.path())
            .env("B", self.0.path().join("unionmount"))
            .env("O", format!("transport={transport}"))
            .output()
            .unwrap()
    }
}

fn users_may_mount() -> bool {
    support::fuse_is_here()
        && fs::metadata("/dev/fuse").is_ok_and(|meta| meta.permissions().mode() & 0o006 == 0o006)
}

/// Says which threads serve, while two processes work on it; the namespace, and the mount with it,
/// ends with the script.
const LIFE: &str = r#"
set -eu
mkdir -p l/d u w m; echo one > l/d/a
$B mount --lower l --upper u --work w -o $O m
(for i in $(seq 50); do echo $i > m/x$i; rm m/x$i; done) & other=$!
for i in $(seq 50); do echo $i > m/y; test "$(cat m/y)" = $i; done
wait $other
echo two >> m/d/a; mv m/d m/e
daemon=$(pgrep -u 0 -f "$B mount")
cat /proc/$daemon/task/*/comm
$B umount m
test -z "$(ls w/work)"
$B mount --lower l --upper u --work w -o $O m
test "$(cat m/e/a)" = "one
two"
$B umount m
rm -rf l u w
"#;

/// The names of the threads, where the life went well.
fn threads_of(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn each_transport_serves_in_a_user_namespace() {
    support::need_fuse!();
    if !users_may_mount() {
        return;
    }
    let home = Home::new();
    for transport in transports().into_iter().chain(["auto"]) {
        on(transport, 60, |name, _| {
            let threads = threads_of(&home.run(&[], name, LIFE));
            let has = |start: &str| threads.iter().any(|thread| thread.starts_with(start));
            let expected = match name {
                "auto" if uring_is_here() => "unionmount-0",
                "uring" => "unionmount-0",
                "fuser" => "fuser-",
                _ => "unionmount-dev",
            };
            assert!(has(expected), "{name}: {threads:?}");
        });
    }
}

/// Makes io_uring_setup(2) fail with EPERM for what it starts, as the seccomp filters of container
/// engines do.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
LD, JEQ, RET = 0x20, 0x15, 0x06
ALLOW, EPERM = 0x7fff0000, 0x00050001
# io_uring_setup has the same number on all machines that have it.
program = b''.join(struct.pack('HBBI', *line) for line in [
    (LD, 0, 0, 0), (JEQ, 0, 1, 425), (RET, 0, 0, EPERM), (RET, 0, 0, ALLOW)])
buffer = ctypes.create_string_buffer(program)
class Filter(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
filter = Filter(len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// `python3`: the user may run nothing that lies in root's home.
fn python() -> &'static str {
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("python3")
}

#[test]
fn where_io_uring_is_forbidden_auto_does_without_and_uring_says_so() {
    support::need_fuse!();
    if !users_may_mount() || !uring_is_here() {
        return;
    }
    on("auto", 60, |_, _| {
        let home = Home::new();
        let prefix = [python(), "-c", WITHOUT_IO_URING];
        let threads = threads_of(&home.run(&prefix, "auto", LIFE));
        assert!(threads.iter().any(|name| name == "unionmount-dev"));
        assert!(
            !threads.iter().any(|name| name == "unionmount-0"),
            "{threads:?}"
        );
        let script = "mkdir -p l m; $B mount --lower l -o $O m; code=$?; ls m; mountpoint -q m && echo mounted; exit $code";
        let output = home.run(&prefix, "uring", script);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert!(message.contains("io_uring is forbidden here"), "{message}");
        assert!(message.contains("transport=dev"), "{message}");
        assert!(output.stdout.is_empty(), "{output:?}");
    });
    // The same as root of the machine, where mounts stay.
    let dir = tempfile::tempdir().unwrap();
    for name in ["l", "m"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let output = bounded(python())
        .args(["-c", WITHOUT_IO_URING])
        .arg(binary())
        .args(["mount", "--lower", "l", "-o", "transport=uring", "m"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(connection(&dir.path().join("m")), None);
    let left = Command::new("ls")
        .arg(dir.path().join("m"))
        .output()
        .unwrap();
    assert!(left.stdout.is_empty());
}
