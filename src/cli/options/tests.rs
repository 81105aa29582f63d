//! The option language against what engines were seen to pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::fuse::settings::MountFlags;
use crate::fuse::settings::{AllowOther, Io, Transport};
use crate::union::config::IdRange;
use crate::union::config::{CacheMode, WhiteoutForm};

fn parse(dialect: Dialect, text: &str) -> Result<Options, String> {
    let mut options = Options::new(dialect);
    options
        .add(OsStr::new(text))
        .map_err(|err| err.to_string())?;
    Ok(options)
}

fn compatible(text: &str) -> Options {
    parse(Dialect::Compatible, text).unwrap()
}

fn error(dialect: Dialect, text: &str) -> String {
    parse(dialect, text).unwrap_err()
}

#[test]
fn what_podman_was_seen_to_pass() {
    let options = compatible(
        "lowerdir=/s/l/VJFEO:l/XX/../diff1,upperdir=/s/diff,workdir=/s/work,,volatile,context=\"u:o:t:s0:c1,c2\",",
    );
    let lowers = [Path::new("/s/l/VJFEO"), Path::new("l/XX/../diff1")];
    assert_eq!(options.config.lowers, lowers);
    assert_eq!(options.config.upper.as_deref(), Some(Path::new("/s/diff")));
    assert_eq!(options.config.work.as_deref(), Some(Path::new("/s/work")));
    assert!(options.config.volatile);
    assert!(options.warnings.is_empty(), "{:?}", options.warnings);
    assert!(options.without_effect.is_empty());
    let label = ("context", "u:o:t:s0:c1,c2".to_owned());
    assert_eq!(options.settings.selinux, [label]);
}

#[test]
fn everything_in_the_contract_is_taken_without_a_warning() {
    let options = compatible(
        "lowerdir=/l,squash_to_root,squash_to_uid=1,squash_to_gid=2,volatile,fsync=0,noacl,noxattrs=1,static_nlink,\
         xino=auto,ino32_t,timeout=1.5,threaded=1,clone_fd,writeback=0,max_write=131072,fast_ino=1,redirect_dir=off,\
         userxattr,metacopy=off,index=off,lazytime,debug,uidmapping=:0:100000:1000,gidmapping=:0:100000:1000,\
         dev,nodev,suid,nosuid,exec,noexec,atime,noatime,relatime,norelatime,strictatime,diratime,nodiratime,sync,async,\
         dirsync,auto,noauto,user,nouser,users,_netdev,nofail,defaults,ro,rw,allow_other,default_permissions,\
         fsname=x,subtype=y,context=a,fscontext=b,defcontext=c,rootcontext=d,x-systemd.automount,xattr_permissions=0",
    );
    assert!(options.warnings.is_empty(), "{:?}", options.warnings);
}

#[test]
fn options_reach_the_configuration() {
    type Check = fn(&Options) -> bool;
    let cases: &[(&str, Check)] = &[
        ("ro", |o| o.config.read_only),
        ("rw", |o| o.settings.transport == Transport::Auto),
        ("transport=auto", |o| {
            o.settings.transport == Transport::Auto
        }),
        ("transport=uring", |o| {
            o.settings.transport == Transport::Uring
        }),
        ("transport=dev", |o| o.settings.transport == Transport::Dev),
        ("transport=fuser", |o| {
            o.settings.transport == Transport::Fuser
        }),
        ("static_nlink", |o| o.config.static_nlink),
        ("static_nlink=1,static_nlink=0", |o| !o.config.static_nlink),
        ("ino32_t", |o| o.config.short_inos),
        ("ino32_t,ino32_t=0", |o| !o.config.short_inos),
        ("io=passthrough", |o| o.settings.io == Io::Passthrough),
        ("io=passthrough,io=cached", |o| o.settings.io == Io::Cached),
        ("io=auto", |o| o.settings.io == Io::Auto),
        ("security_ctx", |o| o.settings.security_ctx),
        ("security_ctx=0", |o| !o.settings.security_ctx),
        ("without=posix_acl:no_open_support", |o| {
            o.settings.without == ["posix_acl", "no_open_support"]
        }),
        ("ro,rw", |o| !o.config.read_only),
        ("volatile", |o| o.config.volatile),
        ("fsync=0", |o| o.config.volatile),
        ("volatile,fsync=1", |o| !o.config.volatile),
        ("squash_to_root", |o| {
            (o.config.squash_uid, o.config.squash_gid) == (Some(0), Some(0))
        }),
        ("squash_to_root=0", |o| o.config.squash_uid.is_none()),
        ("squash_to_uid=7", |o| {
            (o.config.squash_uid, o.config.squash_gid) == (Some(7), None)
        }),
        ("squash_to_gid=7", |o| {
            (o.config.squash_uid, o.config.squash_gid) == (None, Some(7))
        }),
        ("noacl", |o| o.config.no_acl),
        ("noxattrs", |o| o.config.no_xattrs),
        ("noxattrs=1", |o| o.config.no_xattrs),
        ("noxattrs=0", |o| !o.config.no_xattrs),
        ("whiteout=char", |o| o.config.whiteout == WhiteoutForm::Char),
        ("whiteout=auto", |o| o.config.whiteout == WhiteoutForm::Auto),
        ("whiteout=wh", |o| o.config.whiteout == WhiteoutForm::Wh),
        ("cache=auto", |o| o.config.cache == CacheMode::Auto),
        ("redirect_dir=on", |o| o.config.redirect_dir),
        ("nfs_export=on", |o| o.config.nfs_export),
        ("nfs_export=on,nfs_export=off", |o| !o.config.nfs_export),
        ("redirect_dir=on,redirect_dir=nofollow", |o| {
            !o.config.redirect_dir
        }),
        ("timeout=0.5", |o| {
            o.settings.timeout == Some(Duration::from_millis(500))
        }),
        ("threaded=0", |o| o.settings.threads == Some(1)),
        ("threaded=1", |o| o.settings.threads.is_none()),
        ("threaded=0,threaded=1", |o| o.settings.threads.is_none()),
        ("threads=8,threaded=1", |o| o.settings.threads == Some(8)),
        ("threads=8", |o| o.settings.threads == Some(8)),
        ("writeback=0", |o| !o.settings.writeback),
        ("writeback=1", |o| o.settings.writeback),
        ("max_write=65536", |o| o.settings.max_write == Some(65536)),
        ("max_write=0", |o| o.settings.max_write.is_none()),
        ("allow_other", |o| o.settings.allow_other == AllowOther::Yes),
        ("volatile", |o| {
            o.settings.allow_other == AllowOther::WhenPermitted
        }),
        ("default_permissions=0", |o| {
            o.settings.no_default_permissions
        }),
        ("default_permissions", |o| {
            !o.settings.no_default_permissions
        }),
        (r"fsname=a\,b", |o| o.settings.fsname == "a,b"),
        ("subtype=s", |o| o.settings.subtype == "s"),
        ("debug", |o| o.debug),
        ("lowerdir=/a,lowerdir=/b", |o| {
            o.config.lowers == [Path::new("/b")]
        }),
        ("lowerdir=/a,lowerdir+=/b:c,lowerdir+=/d", |o| {
            o.config.lowers == [Path::new("/a"), Path::new("/b:c"), Path::new("/d")]
        }),
        (r"upperdir=/a\:b\,c\\d", |o| {
            o.config.upper.as_deref() == Some(Path::new(r"/a:b,c\d"))
        }),
        ("uidmapping=:0:100000:10:10:5000:1,gidmapping=0:7:1", |o| {
            let range = |disk, seen, len| IdRange { disk, seen, len };
            o.config.uid_map == [range(0, 100_000, 10), range(10, 5000, 1)]
                && o.config.gid_map == [range(0, 7, 1)]
        }),
    ];
    for (text, check) in cases {
        let options = compatible(text);
        assert!(check(&options), "{text}: {options:?}");
    }
}

#[test]
fn generic_flags() {
    let default = MountFlags::default();
    let cases = [
        ("defaults", default),
        (
            "dev",
            MountFlags {
                dev: true,
                ..default
            },
        ),
        ("dev,nodev", default),
        (
            "nosuid,noexec",
            MountFlags {
                suid: false,
                exec: false,
                ..default
            },
        ),
        (
            "noatime,nodiratime",
            MountFlags {
                noatime: true,
                nodiratime: true,
                ..default
            },
        ),
        ("noatime,relatime,nodiratime,diratime", default),
        (
            "sync,dirsync",
            MountFlags {
                sync: true,
                dirsync: true,
                ..default
            },
        ),
        ("sync,async", default),
    ];
    for (text, expected) in cases {
        assert_eq!(compatible(text).settings.flags, expected, "{text}");
    }
}

#[test]
fn wrong_values_are_errors_in_both_dialects() {
    let cases = [
        (
            "threads=abc",
            "option 'threads=abc' is wrong; it takes a number from 1 to 512",
        ),
        (
            "threads=0",
            "option 'threads=0' is wrong; it takes a number from 1 to 512",
        ),
        ("threads", "option 'threads' is wrong; it takes a value"),
        (
            "transport=tcp",
            "option 'transport=tcp' is wrong; it takes auto, uring, dev or fuser",
        ),
        (
            "io=direct",
            "option 'io=direct' is wrong; it takes auto, cached or passthrough",
        ),
        (
            "timeout=-1",
            "option 'timeout=-1' is wrong; it takes a time in seconds, such as 0, 0.5 or 86400",
        ),
        (
            "whiteout=none",
            "option 'whiteout=none' is wrong; it takes wh, char or auto",
        ),
        (
            "cache=never",
            "option 'cache=never' is wrong; it takes static or auto",
        ),
        (
            "redirect_dir=maybe",
            "option 'redirect_dir=maybe' is wrong; it takes on or off",
        ),
        (
            "volatile=x",
            "option 'volatile=x' is wrong; it takes 0 or 1",
        ),
        ("fsync", "option 'fsync' is wrong; it takes a value"),
        ("ro=1", "option 'ro=1' is wrong; it takes no value"),
        ("nodev=1", "option 'nodev=1' is wrong; it takes no value"),
        ("upperdir", "option 'upperdir' is wrong; it takes a value"),
        (
            "upperdir=",
            "option 'upperdir=' is wrong; it takes paths that are not empty",
        ),
        (
            "lowerdir=/a:::/b",
            "option 'lowerdir=/a:::/b' is wrong; it takes paths that are not empty",
        ),
        (
            "max_write=100",
            "option 'max_write=100' is wrong; it takes a number from 4096 to 4294967295",
        ),
        (
            "xino=maybe",
            "option 'xino=maybe' is wrong; it takes on or off or auto",
        ),
        (
            "max_read=x",
            "option 'max_read=x' is wrong; it takes a number from 0 to 4294967295",
        ),
        ("fsname=", "option 'fsname=' is wrong; it takes a name"),
        (
            "uidmapping=1:2",
            "option 'uidmapping=1:2' is wrong; it takes triples DISK:SEEN:LENGTH joined by colons, such as 0:100000:65536",
        ),
        (
            "context=\"a",
            "option 'context': a double quote is not closed",
        ),
        (
            "xattr_permissions=3",
            "option 'xattr_permissions=3' is wrong; it takes 0, 1 or 2",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(Dialect::Strict, text), expected);
        assert_eq!(error(Dialect::Compatible, text), expected);
    }
}

#[test]
fn values_of_the_kernel_are_only_for_the_compatible_form() {
    let message = error(Dialect::Strict, "redirect_dir=follow");
    assert_eq!(
        message,
        "option 'redirect_dir=follow' is wrong; it takes on or off"
    );
}

#[test]
fn unknown_options() {
    assert_eq!(
        error(Dialect::Strict, "ro,volatil"),
        "unknown option 'volatil'; did you mean 'volatile'?"
    );
    let no_idea = error(Dialect::Strict, "qqq=1");
    assert_eq!(
        no_idea,
        "unknown option 'qqq'; see 'unionmount mount --help' for the valid ones"
    );
    let options = compatible("volatil,qqq=1,lowerdir=/l");
    assert_eq!(options.warnings.len(), 2);
    assert_eq!(
        options.warnings[0],
        "unknown option 'volatil' is ignored; did you mean 'volatile'?"
    );
    assert_eq!(options.config.lowers.len(), 1);
}

#[test]
fn five_hundred_lowers_in_128_kib() {
    let list: Vec<String> = (0..500).map(|number| format!("/{number:0>250}")).collect();
    let text = format!("lowerdir={},volatile", list.join(":"));
    assert!(text.len() > 120 * 1024);
    let options = compatible(&text);
    assert_eq!(options.config.lowers.len(), 500);
    assert_eq!(options.config.lowers[499], Path::new(&list[499]));
    let long = error(
        Dialect::Strict,
        &format!("lowerdir=/{}:", "x".repeat(100_000)),
    );
    assert!(long.len() < 200, "{long}");
}

#[test]
fn several_arguments_and_bytes_that_are_no_text() {
    let mut options = Options::new(Dialect::Strict);
    options
        .add(&OsString::from_vec(b"lowerdir=/\xff:/b".to_vec()))
        .unwrap();
    options.add(OsStr::new("upperdir=/u")).unwrap();
    options.add(OsStr::new("")).unwrap();
    assert_eq!(options.config.lowers[0].as_os_str().as_bytes(), b"/\xff");
    assert!(options.config.upper.is_some());
    let unknown = options
        .add(&OsString::from_vec(b"\xff\n=1".to_vec()))
        .unwrap_err();
    assert!(unknown.to_string().starts_with("unknown option '\u{fffd}"));
}

#[test]
fn an_unknown_capability_is_answered_with_the_known_ones() {
    let text = error(Dialect::Strict, "without=posix_acl:posix_acls");
    assert!(
        text.contains("it takes names of parallel_dirops, "),
        "{text}"
    );
    assert!(text.ends_with("over_io_uring"), "{text}");
}

#[test]
fn double_colons_stand_before_layers_for_bytes_only() {
    let mut options = Options::new(Dialect::Compatible);
    let text = OsStr::new("lowerdir=/a:/b::/c::/d,datadir+=/e");
    options.add(text).unwrap();
    assert_eq!(options.config.lowers, [Path::new("/a"), Path::new("/b")]);
    let data = ["/c", "/d", "/e"].map(Path::new);
    assert_eq!(options.config.data_only, data);
}
