//! Tests of `table.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use std::path::Path;

const BEGIN: &str =
    "<!-- options: made from the code; UNIONMOUNT_WRITE_GUIDE=1 cargo test --lib guide_page -->\n";
const END: &str = "<!-- options end -->";

/// Returns the table as Markdown for the guide's page of options.
fn markdown() -> String {
    let parts = [
        ("", "meaning", OPTIONS),
        (
            "Accepted because other programs pass them, without effect:\n\n",
            "reason",
            WITHOUT_EFFECT,
        ),
        ("Refused:\n\n", "instead", UNSUPPORTED),
    ];
    let mut text = String::new();
    for (title, column, specs) in parts {
        text.push_str(&format!("{title}| option | {column} |\n| --- | --- |\n"));
        for spec in specs {
            let value = spec.value.replace('|', "\\|");
            let help = spec.help.replace('\\', "\\\\").replace('|', "\\|");
            text.push_str(&format!("| `{}{value}` | {help} |\n", spec.name));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_guide_page_is_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/options.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let made = format!("{before}{BEGIN}\n{}{END}{after}", markdown());
    if std::env::var_os("UNIONMOUNT_WRITE_GUIDE").is_some_and(|value| value == "1") {
        std::fs::write(&path, made).unwrap();
    } else {
        assert!(
            page == made,
            "src/guide/options.md differs from the table; run: UNIONMOUNT_WRITE_GUIDE=1 cargo test --lib guide_page"
        );
    }
}

#[test]
fn every_option_is_listed_once_and_documented() {
    let mut names: Vec<_> = all().map(|spec| spec.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(all().all(|spec| !spec.help.is_empty() && !spec.help.ends_with('.')));
    let help = help();
    assert!(all().all(|spec| help.contains(&format!("  {}{}", spec.name, spec.value))));
}

#[test]
fn nearest_name() {
    let cases = [
        ("volatil", Some("volatile")),
        ("wokrdir", Some("workdir")),
        ("lower", Some("lowerdir")),
        ("threds", Some("threads")),
        ("redirectdir", Some("redirect_dir")),
        ("squash-to-root", Some("squash_to_root")),
        ("zzz", None),
        ("", None),
    ];
    for (name, expected) in cases {
        assert_eq!(nearest(name), expected, "{name}");
    }
}
