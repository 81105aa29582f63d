//! The compatible form against calls that were seen, and calls that are wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;

fn asked(called_as: CalledAs, line: &str) -> Result<Asked, String> {
    let arguments = line.split_whitespace().map(OsString::from).collect();
    parse(called_as, arguments).map_err(|err| err.to_string())
}

fn request(line: &str) -> Request {
    match asked(CalledAs::Unionmount, line) {
        Ok(Asked::Mount(request)) => *request,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn positions_of_options_and_positionals() {
    for line in [
        "-o lowerdir=/l,volatile src /m -f",
        "src /m -o lowerdir=/l,volatile -f",
        "src -f -olowerdir=/l /m -o volatile",
        "-fo lowerdir=/l,volatile src /m",
        "-f -o lowerdir=/l,volatile -- src /m",
        "--foreground -o lowerdir=/l -ovolatile src /m",
    ] {
        let request = request(line);
        assert_eq!(request.config.lowers, [PathBuf::from("/l")], "{line}");
        assert!(
            request.config.volatile && request.settings.foreground,
            "{line}"
        );
        assert_eq!(request.settings.fsname, "src", "{line}");
        assert_eq!(request.settings.mountpoint, PathBuf::from("/m"), "{line}");
        assert!(!request.debug && !request.fake && request.settings.log_file.is_none());
    }
}

#[test]
fn names_in_proc_mounts() {
    let cases = [
        (
            CalledAs::Unionmount,
            "-o lowerdir=/l /m",
            "unionmount",
            "unionmount",
        ),
        (
            CalledAs::MountHelper,
            "src /m -o lowerdir=/l",
            "src",
            "unionmount",
        ),
        (
            CalledAs::FuseOverlayfs,
            "-o lowerdir=/l /m",
            "fuse-overlayfs",
            "fuse-overlayfs",
        ),
        (
            CalledAs::FuseOverlayfs,
            "-o lowerdir=/l,fsname=a src /m",
            "a",
            "fuse-overlayfs",
        ),
        (
            CalledAs::Unionmount,
            "-o lowerdir=/l,subtype=b /m",
            "b",
            "b",
        ),
    ];
    for (called_as, line, fsname, subtype) in cases {
        let Ok(Asked::Mount(request)) = asked(called_as, line) else {
            panic!("{line}");
        };
        assert_eq!(
            (
                request.settings.fsname.as_str(),
                request.settings.subtype.as_str()
            ),
            (fsname, subtype)
        );
    }
}

#[test]
fn called_as() {
    let cases = [
        ("unionmount", CalledAs::Unionmount),
        ("/usr/bin/fuse-overlayfs", CalledAs::FuseOverlayfs),
        ("fuse-overlayfs-1.13", CalledAs::Unionmount),
        ("/sbin/mount.unionmount", CalledAs::MountHelper),
        ("/sbin/mount.fuse.unionmount", CalledAs::MountHelper),
        ("", CalledAs::Unionmount),
    ];
    for (argv0, expected) in cases {
        assert_eq!(CalledAs::from_argv0(OsStr::new(argv0)), expected, "{argv0}");
    }
    assert!(
        CalledAs::FuseOverlayfs
            .version()
            .starts_with("fuse-overlayfs: version 1.13\nunionmount ")
    );
    assert!(CalledAs::Unionmount.version().starts_with("unionmount "));
}

#[test]
fn flags() {
    assert!(request("-d -o lowerdir=/l /m").debug);
    assert!(request("-d -o lowerdir=/l /m").settings.foreground);
    // An engine that passes the option waits for the parent to exit: that one does not stay.
    assert!(request("-o lowerdir=/l,debug /m").debug);
    assert!(!request("-o lowerdir=/l,debug /m").settings.foreground);
    assert_eq!(request("-s -o lowerdir=/l /m").settings.threads, Some(1));
    assert_eq!(
        request("--log-file=/f -o lowerdir=/l /m").settings.log_file,
        Some("/f".into())
    );
    assert_eq!(
        request("--log-file /f -o lowerdir=/l /m").settings.log_file,
        Some("/f".into())
    );
    assert_eq!(
        request("-o lowerdir=/l /dev/fd/3").settings.mountpoint,
        PathBuf::from("/dev/fd/3")
    );
    assert!(
        request("-o lowerdir=/l,workdir=/w /m")
            .config
            .work
            .is_none()
    );
    assert!(request("-o lowerdir=/l,upperdir=/u,ro /m").config.read_only);
    assert_eq!(request("-o lowerdir=/l,qqq /m").warnings.len(), 1);
}

#[test]
fn as_a_helper_of_mount() {
    let Ok(Asked::Mount(request)) = asked(
        CalledAs::MountHelper,
        "s /m -sfnvr -t fuse.unionmount -o lowerdir=/l",
    ) else {
        panic!("not a mount");
    };
    assert!(request.fake && request.config.read_only && !request.settings.foreground);
    assert_eq!(request.settings.threads, None);
}

#[test]
fn help_and_version_win() {
    assert!(matches!(asked(CalledAs::Unionmount, "-h"), Ok(Asked::Help)));
    assert!(matches!(
        asked(CalledAs::Unionmount, "-f --help /m"),
        Ok(Asked::Help)
    ));
    assert!(matches!(
        asked(CalledAs::FuseOverlayfs, "--version"),
        Ok(Asked::Version)
    ));
    assert!(matches!(
        asked(CalledAs::Unionmount, "-V"),
        Ok(Asked::Version)
    ));
}

#[test]
fn errors() {
    let cases = [
        (
            "-o lowerdir=/l",
            "no mountpoint is given; it is the last argument, see 'unionmount --help'",
        ),
        (
            "/m",
            "option 'lowerdir' is missing; add -o lowerdir=DIR[:DIR..]",
        ),
        (
            "-o upperdir=/u /m",
            "option 'lowerdir' is missing; add -o lowerdir=DIR[:DIR..]",
        ),
        (
            "-o lowerdir=/l,upperdir=/u /m",
            "option 'upperdir' needs a work directory; add workdir=DIR on the same file system",
        ),
        (
            "-o lowerdir=/l a b c",
            "3 arguments are given besides options; give [SOURCE] MOUNTPOINT",
        ),
        (
            "mout a b /m",
            "unknown command 'mout'; did you mean 'mount'?",
        ),
        (
            "umont /m",
            "unknown command 'umont'; did you mean 'umount'?",
        ),
        ("-o", "'-o' is the last argument; a value must follow it"),
        (
            "-q /m",
            "unknown argument '-q'; this is the form without a subcommand, see 'unionmount --help'",
        ),
        (
            "--lower /l /m",
            "unknown argument '--lower'; this is the form without a subcommand, see 'unionmount --help'",
        ),
        (
            "-o threads=abc /m",
            "option 'threads=abc' is wrong; it takes a number from 1 to 512",
        ),
    ];
    for (line, expected) in cases {
        match asked(CalledAs::Unionmount, line) {
            Err(message) => assert_eq!(message, expected, "{line}"),
            Ok(asked) => panic!("{line}: {asked:?}"),
        }
    }
}
