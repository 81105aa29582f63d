//! Failures that the model test found, each with the fewest operations that showed it.

use super::describe::{Stack, check, dir, file, hard_link, leaf, leftover, opaque, sym, white};
use super::ops::{
    Do, Mode, Space, create, fifo, held_link, link, mkdir, on, op, remove_xattr, rename, rmdir,
    set_xattr, symlink, unlink,
};
use super::stack::{Leaf, Opaque, White};

/// Never failed: a small life with every kind of object, and an example of how these tests are
/// written.
#[test]
fn every_kind_of_object_is_made_changed_and_removed() {
    let lower = vec![
        dir("d").mode(0o3770).owner(7, 50).mtime(-300_000_000, 1),
        sym("d/s", "nowhere"),
        leaf("f", Leaf::Fifo).mode(0o600),
        file("d/a")
            .mode(0o4755)
            .xattr("user.a", "1")
            .xattr("trusted.a", "2"),
        hard_link("b", "d/a"),
        white("c", White::Char),
    ];
    check(
        Stack::new().lower(lower).lower(vec![file("c")]).every(3),
        &[
            create("c", 0o644),
            link("d/s", "t"),
            symlink("d/u", "b"),
            fifo("d/p", 0o622),
            on("b", Do::Chmod(0o4711)),
            rename("d", "e", Mode::Replace),
            on("e", Do::List),
            op(Do::More(2)),
            unlink("e/a"),
            op(Do::More(5)),
            op(Do::Remount),
            unlink("f"),
        ],
    );
}

/// The new redirect was on disk, but the listing kept the old one: after a forget the directory
/// took the lower content of its new name instead of its own.
#[test]
fn regression_renamed_directory_keeps_its_redirect_after_a_forget() {
    check(
        Stack::new().lower(vec![dir("c/b")]),
        &[
            rename("c", "a", Mode::NoReplace),
            op(Do::Forget),
            mkdir("c", 0o755),
            op(Do::Forget),
        ],
    );
}

/// The same for both ends of an exchange.
#[test]
fn regression_exchanged_directories_keep_their_redirects_after_a_forget() {
    check(
        Stack::new().lower(vec![dir("b/a/c"), leftover("c/a"), file("c/d")]),
        &[rename("b/a", "c", Mode::Exchange), op(Do::Forget)],
    );
}

/// The memory of a second rename was that of the first one.
#[test]
fn regression_directory_renamed_twice_with_an_exchange_between() {
    check(
        Stack::new()
            .lower(vec![file("h/c"), dir("s")])
            .lower(vec![dir("d/c/d")]),
        &[
            on("d", Do::Hold),
            rename("s", "h/c", Mode::Exchange),
            rename("d/c", "h/c", Mode::Exchange),
            op(Do::Forget),
        ],
    );
}

/// An empty upper that was first mounted with devices as whiteouts remembers that `.wh.` names are
/// ordinary ones. A later mount with `.wh.` files as whiteouts wrote them all the same: at the
/// third mount the deleted name was back and the mark visible.
#[test]
fn regression_whiteout_form_changes_between_mounts() {
    check(
        Stack::new()
            .lower(vec![file("a"), dir("c/d")])
            .form(&["char"])
            .form(&[])
            .form(&["char"]),
        &[
            op(Do::Remount),
            unlink("a"),
            rmdir("c/d"),
            rename("c", "e", Mode::Replace),
            op(Do::Remount),
        ],
    );
}

/// Any xattr of an overlay on the upper's root, even a mark, counted as a sign of kernel overlayfs,
/// for which `.wh.` names are ordinary: marks in all forms were not read side by side.
#[test]
fn regression_mixed_marks_in_an_upper() {
    check(
        Stack::new()
            .lower(vec![file("b/c"), file("d")])
            .upper(vec![
                white("b/c", White::Wh),
                white("d", White::Trusted),
                leftover(""),
            ])
            .form(&["char"]),
        &[unlink("b")],
    );
}

/// Names of one lower file were looked for at the lower's paths, where a redirected directory is no
/// more.
#[test]
fn regression_hard_links_below_a_renamed_directory() {
    check(
        Stack::new().lower(vec![dir("d/h"), file("a/x"), hard_link("d/c", "a/x")]),
        &[
            rename("a", "d/h/a", Mode::Replace),
            op(Do::Remount),
            on("d/c", Do::Append(3, 7)),
        ],
    );
}

/// Whiteouts in a copied-up tree that is cut off from the layers below stayed where they were,
/// except in directories that happened to be cached.
#[test]
fn regression_needless_whiteouts_in_a_renamed_tree() {
    check(
        Stack::new()
            .lower(vec![dir("a/b/c"), dir("d/e/f/g"), dir("d/w")])
            .form(&["cold"]),
        &[
            rmdir("a/b/c"),
            rename("a", "w", Mode::Replace),
            rmdir("d/e/f/g"),
            rename("d", "w/d", Mode::Replace),
        ],
    );
}

/// The kernel's writeback cache owns a file's mtime and tells it; a write that arrived after that
/// stamped the disk with its own time, which showed after the next mount.
#[test]
fn regression_mtime_after_cached_writes() {
    check(
        Stack::new().lower(vec![file("b/a"), file("c")]),
        &[
            on("b/a", Do::Append(4096, 3)),
            on("b/a", Do::Write(1, 1, 15)),
            on("c", Do::Fallocate(Space::Allocate, 0, 1)),
            on("c", Do::Write(0, 5000, 148)),
            create("b/n", 0o644),
            on("b/n", Do::Hold),
            op(Do::HeldTruncate(0, 300_000)),
            op(Do::HeldTruncate(0, 5)),
            op(Do::HeldWrite(0, 4096, 5000, 62)),
        ],
    );
}

/// An empty directory with an AUFS leftover in it, which is a directory itself, could not be
/// replaced.
#[test]
fn regression_rename_over_a_directory_with_leftovers() {
    check(
        Stack::new()
            .lower(Vec::new())
            .upper(vec![leftover("d/e"), leftover("f")]),
        &[rename("f", "d/e", Mode::Replace), rmdir("d/e")],
    );
}

/// A redirect from the layers' roots did not stop at a root that is opaque.
#[test]
fn regression_redirect_below_an_opaque_root() {
    check(
        Stack::new()
            .lower(vec![opaque("", Opaque::User), file("h/x")])
            .lower(vec![dir("h/a")]),
        &[rename("h", "d", Mode::Replace), op(Do::Remount)],
    );
}

/// Removing a POSIX ACL where there is none is no error.
#[test]
fn regression_remove_acl_that_is_not_there() {
    check(
        Stack::new().lower(vec![dir("d"), file("f")]),
        &[
            remove_xattr("d", "system.posix_acl_default"),
            remove_xattr("f", "system.posix_acl_access"),
            set_xattr("f", "user.a", "b"),
            remove_xattr("f", "user.b"),
        ],
    );
}

/// The last times of a directory that a rename replaces were read after its marks had been removed.
#[test]
fn regression_times_of_a_replaced_directory_that_is_open() {
    check(
        Stack::new().lower(vec![file("a/c"), file("b/c")]),
        &[
            rename("a/c", "x", Mode::Replace),
            on("a", Do::Hold),
            rename("b", "a", Mode::Replace),
        ],
    );
}

/// The same as above for fallocate after a cached write.
#[test]
fn regression_mtime_after_fallocate() {
    check(
        Stack::new().lower(vec![file("b"), file("c")]),
        &[
            on("b", Do::Append(5000, 68)),
            on("b", Do::Fallocate(Space::Allocate, 5, 4096)),
            on("c", Do::Hold),
            op(Do::HeldWrite(0, 300_000, 10, 51)),
            on("c", Do::Append(5000, 59)),
            on("c", Do::Fallocate(Space::PunchHole, 0, 5)),
        ],
    );
}

/// A tree with a redirected directory in it was renamed without redirects: the directory lost the
/// whiteouts that hid its lower content, and kept the redirect to it.
#[test]
fn regression_redirected_directory_in_a_tree_that_is_copied_up() {
    check(
        Stack::new()
            .lower(vec![file("d/a/v")])
            .lower(vec![dir("h/a/b")])
            .lower(vec![dir("d/e/d"), dir("h/x/a")])
            .form(&["redirect"])
            .form(&[])
            .form(&[]),
        &[
            rename("d/a", "d/e", Mode::Exchange),
            unlink("d/e/v"),
            rename("d/e", "h/a/b/w", Mode::Replace),
            mkdir("h/x/a/c", 0o700),
            op(Do::Remount),
            rename("h/x/a/c", "h/a", Mode::Exchange),
        ],
    );
}

/// The same, where a file was renamed out of such a directory: it was there twice.
#[test]
fn regression_renamed_out_of_a_redirected_directory() {
    check(
        Stack::new()
            .lower(vec![
                white("a/c/h", White::User),
                dir("n/a/b"),
                file("c/h/c"),
                dir("b/c"),
            ])
            .form(&["redirect"])
            .form(&[]),
        &[
            rename("c", "n/a/b", Mode::Exchange),
            rename("b", "a/c/h", Mode::NoReplace),
            op(Do::Remount),
            rename("n/a/b/h/c", "c/a", Mode::NoReplace),
            rename("a/c/h", "n/a", Mode::Exchange),
        ],
    );
}

/// The whiteout that a directory replaced became the whiteout of the directory's old name, where
/// its form is none: it showed as an empty file.
#[test]
fn regression_rename_over_a_whiteout_of_another_form() {
    check(
        Stack::new()
            .lower(vec![file("a/d/a")])
            .upper(vec![white("c", White::Trusted)]),
        &[rename("a/d", "c", Mode::Replace), op(Do::Remount)],
    );
}

/// An exchange took a name away and made it anew: a listing under way showed it twice.
#[test]
fn regression_exchange_while_listing() {
    check(
        Stack::new()
            .lower(vec![file("h/c")])
            .upper(vec![dir("d/a/b")]),
        &[
            on("d", Do::List),
            op(Do::More(3)),
            rename("d/a", "h/c", Mode::Exchange),
            op(Do::More(4)),
            op(Do::More(2)),
        ],
    );
}

/// A file without a name gets its first one over a whiteout, and a second one; a removed file gets
/// none.
#[test]
fn a_file_without_a_name_gets_two() {
    check(
        Stack::new().lower(vec![file("d/a"), file("d/b")]),
        &[
            unlink("d/a"),
            on("d", Do::Unnamed(0o640)),
            op(Do::HeldWrite(0, 10, 5000, 3)),
            held_link(0, "d/a"),
            held_link(0, "c"),
            held_link(0, "c"),
            on("d/b", Do::Hold),
            unlink("d/b"),
            held_link(1, "e"),
            op(Do::HeldWrite(0, 0, 10, 4)),
            unlink("d/a"),
            op(Do::Remount),
        ],
    );
}

/// One xattr says that a directory is opaque, or that it holds whiteouts by xattr: when it was made
/// opaque, those became ordinary empty files.
#[test]
fn regression_opaque_directory_with_whiteouts_by_xattr() {
    check(
        Stack::new()
            .lower(vec![file("h/c/b"), file("d/a")])
            .upper(vec![
                white("h/b/s", White::Trusted),
                white("d/s/d", White::User),
            ]),
        &[
            rename("h/c", "h/b", Mode::Exchange),
            rename("d/a", "d/s", Mode::Exchange),
            op(Do::Remount),
        ],
    );
}

/// Where whiteouts are devices, `.wh..wh..opq` is a name like any other: in the root it made
/// redirects lead nowhere from the next mount on.
#[test]
fn regression_opaque_name_beside_redirects() {
    check(
        Stack::new()
            .lower(vec![file("c/a"), dir("b")])
            .form(&["char", "redirect"]),
        &[
            fifo(".wh..wh..opq", 0o644),
            rename("c", "b/d", Mode::Replace),
            op(Do::Remount),
        ],
    );
}
