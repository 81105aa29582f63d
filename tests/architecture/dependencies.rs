//! What the program is linked with: licences that its own (MIT) goes with, and packages that the
//! oldest compiler it promises (`rust-version`) can build. That nothing newer of the standard
//! library is used is clippy's to see (`incompatible_msrv`).

use std::collections::{BTreeSet, HashMap};
use std::process::Command;

use serde_json::Value;

/// Licences that need nothing but their text with the program.
const LICENCES: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

struct Package {
    name: String,
    licence: String,
    rust_version: Option<String>,
}

/// The packages that are linked into the program on this platform.
fn linked() -> Vec<Package> {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", host.unwrap()])
        .current_dir(crate::sources::root())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {complaint}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes: HashMap<&str, &Value> = all["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let root = all["resolve"]["root"].as_str().unwrap();
    let (mut seen, mut pending) = (BTreeSet::from([root]), vec![root]);
    while let Some(id) = pending.pop() {
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let used = dependency["pkg"].as_str().unwrap();
            if kinds.iter().any(|kind| kind["kind"] != "dev") && seen.insert(used) {
                pending.push(used);
            }
        }
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let packages = all["packages"].as_array().unwrap().iter();
    packages
        .filter(|package| seen.contains(package["id"].as_str().unwrap()))
        .map(|package| Package {
            name: format!("{} {}", package["name"], package["version"]).replace('"', ""),
            licence: text(&package["license"]).unwrap_or_default(),
            rust_version: text(&package["rust_version"]),
        })
        .collect()
}

/// Whether an SPDX expression leaves a choice that is allowed: `AND` binds closer than `OR`, and
/// old packages write `/` for `OR`.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some((before, inner)) = expression.split_once('(') {
        let (inner, after) = inner.split_once(')').unwrap_or((inner, ""));
        let value = if is_allowed(inner) { "MIT" } else { "none" };
        return is_allowed(&format!("{before}{value}{after}"));
    }
    expression.split(" OR ").any(|choice| {
        let mut licences = choice.split(" AND ").map(str::trim);
        licences.all(|licence| LICENCES.contains(&licence))
    })
}

#[test]
fn expressions_leave_a_choice() {
    for allowed in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for refused in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(GPL-2.0 OR MPL-2.0) AND MIT",
    ] {
        assert!(!is_allowed(refused), "{refused}");
    }
}

#[test]
fn licences_of_dependencies_are_permissive() {
    let packages = linked();
    assert!(packages.len() > 50, "{}", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !is_allowed(&package.licence))
        .map(|package| format!("{}: {:?}", package.name, package.licence))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// `1.88` and `1.88.0` as numbers.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[test]
fn the_promised_compiler_builds_all_dependencies() {
    let promised = numbers(env!("CARGO_PKG_RUST_VERSION"));
    let newer: Vec<String> = linked()
        .iter()
        .filter_map(|package| Some((package, package.rust_version.as_deref()?)))
        .filter(|(_, wanted)| numbers(wanted) > promised)
        .map(|(package, wanted)| format!("{} wants Rust {wanted}", package.name))
        .collect();
    assert!(newer.is_empty(), "{newer:#?}");
}
