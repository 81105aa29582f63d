//! A node id is never used again, and st_ino is the disk's: an unlinked open file stays itself
//! while its disk gives its inode number to others. The disk is an ext4 with a journal: one without
//! gives no number out again for a minute, and looks for another one at each of those that it has.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::guard::{on_each, stack};
use support::Stack;
use support::images::{self, Mounted};

/// How many files are made and removed meanwhile.
const FILES: usize = 100_000;
/// How many of them there are at a time.
const AT_A_TIME: usize = 100;

#[test]
fn an_unlinked_open_file_stays_itself_while_its_number_is_used_again() {
    support::need_fuse!();
    on_each(240, |transport, limit| {
        let stack = stack(transport, 1).option("volatile");
        let _disk = on_ext4(&stack);
        stack.file(0, "lower", "from below");
        let mount = limit.mount(&stack);
        let open = |name: &str| {
            let options = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(mount.path(name));
            options.unwrap()
        };
        let (new, lower) = (open("new"), open("lower"));
        new.write_all_at(b"new itself", 0).unwrap();
        let before: Vec<_> = [&new, &lower].map(ino).into();
        fs::remove_file(mount.path("new")).unwrap();
        fs::remove_file(mount.path("lower")).unwrap();
        let dir = mount.path("d");
        fs::create_dir(&dir).unwrap();
        let upper = stack.upper().join("d");
        let mut used_again = 0;
        let mut seen = std::collections::HashSet::new();
        for round in 0..FILES / AT_A_TIME {
            for n in 0..AT_A_TIME {
                let file = File::create(dir.join(n.to_string())).unwrap();
                if n % 10 == 0 {
                    file.write_all_at(round.to_string().as_bytes(), 0).unwrap();
                }
            }
            // A look at some of them, also at what the disk says.
            for n in [0, AT_A_TIME / 2, AT_A_TIME - 1] {
                let name = n.to_string();
                let shown = fs::metadata(dir.join(&name)).unwrap();
                let real = fs::metadata(upper.join(&name)).unwrap();
                // The union's numbers of upper files are the disk's, in a form of its own: equal
                // for equal ones.
                assert_eq!(
                    shown.ino() & 0xffff_ffff,
                    real.ino() & 0xffff_ffff,
                    "{name}"
                );
                assert!(!before.contains(&shown.ino()), "{name}: a number in use");
                used_again += usize::from(!seen.insert(real.ino()));
                let open = File::open(dir.join(&name)).unwrap();
                assert_eq!(ino(&open), shown.ino());
                let content = fs::read_to_string(dir.join(&name)).unwrap();
                let expected = if n % 10 == 0 {
                    round.to_string()
                } else {
                    String::new()
                };
                assert_eq!(content, expected, "round {round}, {name}");
            }
            for n in 0..AT_A_TIME {
                fs::remove_file(dir.join(n.to_string())).unwrap();
            }
            if round % 100 == 0 {
                new.write_all_at(format!("new {round:<8}").as_bytes(), 0)
                    .unwrap();
                lower
                    .write_all_at(format!("low {round:<8}").as_bytes(), 0)
                    .unwrap();
            }
            if round % 100 == 99 {
                for (file, start) in [(&new, "new "), (&lower, "low ")] {
                    let mut bytes = [0; 12];
                    file.read_exact_at(&mut bytes[..10], 0).unwrap();
                    assert_eq!(String::from_utf8_lossy(&bytes[..4]), start);
                    let meta = file.metadata().unwrap();
                    assert_eq!(meta.nlink(), 0);
                }
                assert_eq!([&new, &lower].map(ino).to_vec(), before);
            }
        }
        println!("{transport}: {used_again} inode numbers of the disk were used again");
        assert!(
            used_again > 100,
            "{used_again}: the disk gives no number twice"
        );
        drop((new, lower));
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

/// Puts the directories of a stack on a disk of their own.
fn on_ext4(stack: &Stack) -> Option<Mounted> {
    if !images::is_here("ext4") {
        return None;
    }
    let image = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let made = images::empty(image.path(), "made", "ext4");
    // Not as a mount in its own directory, which goes with the image.
    let top = stack.dir.path();
    let disk = images::mount(top, ".", &format!("--bind {}", made.at.display()));
    drop(made);
    for name in ["l0", "upper", "work", "merged"] {
        fs::create_dir(top.join(name)).unwrap();
    }
    Some(disk)
}

fn ino(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}
