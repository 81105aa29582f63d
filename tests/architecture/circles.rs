//! Circles of imports between the files of a room.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::sources::{code_lines, src_files, within_src};

/// So many files at most may use each other in a circle.
const MOST_FILES: usize = 4;

type Module = Vec<String>;
type Uses = BTreeMap<Module, BTreeSet<Module>>;

fn module_of(file: &Path) -> Module {
    let mut parts = within_src(file);
    let last = parts.pop().unwrap();
    match last.trim_end_matches(".rs") {
        "mod" | "lib" => {}
        name => parts.push(name.to_owned()),
    }
    parts
}

/// The names of a file's `use` items: `{..}` taken apart.
fn imports(lines: &[String]) -> Vec<String> {
    let (mut found, mut item) = (Vec::new(), None::<String>);
    for line in lines {
        let line = line.trim();
        let begin = line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "));
        match &mut item {
            Some(item) => item.push_str(line),
            None if begin => item = line.split_once("use ").map(|(_, rest)| rest.to_owned()),
            None => continue,
        }
        if let Some((import, _)) = item.as_deref().and_then(|item| item.split_once(';')) {
            found.extend(taken_apart(import));
            item = None;
        }
    }
    found
}

fn taken_apart(import: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    // What stands before each open brace, and so before each name in it.
    let mut prefixes = vec![String::new()];
    for c in import.chars().filter(|c| !c.is_whitespace()) {
        let current = found.last_mut().unwrap();
        match c {
            '{' => prefixes.push(current.clone()),
            ',' => found.push(prefixes.last().unwrap().clone()),
            '}' => {
                prefixes.pop();
            }
            _ => current.push(c),
        }
    }
    found
}

/// The module that an import of `from` leads to.
fn used_module(from: &Module, import: &str, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut names: Vec<&str> = import.split("::").collect();
    let mut base: Module = Vec::new();
    match names.first() {
        Some(&"crate") => drop(names.remove(0)),
        Some(&"self") => {
            base.clone_from(from);
            names.remove(0);
        }
        Some(&"super") => {
            base.clone_from(from);
            while names.first() == Some(&"super") {
                base.pop();
                names.remove(0);
            }
        }
        _ => return None,
    }
    base.extend(names.into_iter().map(str::to_owned));
    while !base.is_empty() && !modules.contains(&base) {
        base.pop();
    }
    (base != *from && !base.is_empty()).then_some(base)
}

/// All that a module leads to.
fn reached<'a>(uses: &'a Uses, from: &'a Module) -> BTreeSet<&'a Module> {
    let (mut seen, mut pending) = (BTreeSet::new(), vec![from]);
    while let Some(module) = pending.pop() {
        for used in uses.get(module).into_iter().flatten() {
            if seen.insert(used) {
                pending.push(used);
            }
        }
    }
    seen
}

/// The modules that lead to themselves, each with all others in its circle.
fn circles(uses: &Uses) -> BTreeSet<Vec<&Module>> {
    let reached: BTreeMap<_, _> = uses
        .keys()
        .map(|from| (from, reached(uses, from)))
        .collect();
    let circle = |from: &Module| -> Vec<&Module> {
        let back = |other: &&Module| reached.get(*other).is_some_and(|r| r.contains(from));
        reached[from].iter().copied().filter(back).collect()
    };
    let all = uses.keys().map(circle);
    all.filter(|circle| circle.len() > 1).collect()
}

#[test]
fn no_more_than_four_files_use_each_other_in_a_circle() {
    let files = src_files();
    let modules: BTreeSet<Module> = files.iter().map(|file| module_of(file)).collect();
    let mut uses = Uses::new();
    for file in &files {
        let module = module_of(file);
        let imports = imports(&code_lines(file));
        let used = imports
            .iter()
            .filter_map(|import| used_module(&module, import, &modules))
            // What a room's `mod.rs` passes on belongs to the files behind it.
            .filter(|used| !module.starts_with(used));
        uses.entry(module.clone()).or_default().extend(used);
    }
    let large: Vec<_> = circles(&uses)
        .into_iter()
        .filter(|circle| circle.len() > MOST_FILES)
        .collect();
    assert!(large.is_empty(), "{large:#?}");
}

#[test]
fn a_circle_of_imports_is_found() {
    let modules: BTreeSet<Module> = ["a", "b", "c", "d"]
        .map(|name| vec![name.to_owned()])
        .into();
    let module = |name: &str| vec![name.to_owned()];
    let mut uses = Uses::new();
    for (from, code) in [
        ("a", "use crate::{b::{Bee, more}, std};"),
        ("b", "pub use super::c;"),
        ("c", "use crate::a;"),
        ("d", "use crate::a::x; // use crate::d;"),
    ] {
        let found = imports(&[code.to_owned()]);
        let used = found.iter();
        let used = used.filter_map(|import| used_module(&module(from), import, &modules));
        uses.insert(module(from), used.collect());
    }
    let circle = ["a", "b", "c"].map(module);
    let found: Vec<Vec<Module>> = circles(&uses)
        .into_iter()
        .map(|circle| circle.into_iter().cloned().collect())
        .collect();
    assert_eq!(found, [circle.to_vec()]);
}
