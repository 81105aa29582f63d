//! The guide: what unionmount promises, how it is used, and how to work on it.
//!
//! The pages are the Markdown files in `src/guide/`, which a forge shows as well.

/// Defines a module for each page. A page ends with the definitions of its links, which lead to
/// files. The definitions here come before it, and the first definition of a label counts: in
/// rustdoc the links lead to modules, and to the picture from `target/doc`.
macro_rules! pages {
    ($($name:ident $file:literal)*) => {$(
        #[doc = concat!(
            "[semantics]: crate::guide::semantics\n",
            "[limits]: crate::guide::limits\n",
            "[options]: crate::guide::options\n",
            "[transports]: crate::guide::transports\n",
            "[layers]: crate::guide::layers\n",
            "[store]: crate::guide::store\n",
            "[engines]: crate::guide::engines\n",
            "[performance]: crate::guide::performance\n",
            "[testing]: crate::guide::testing\n",
            "[design]: crate::guide::design\n",
            "[contributing]: crate::guide::contributing\n",
            "[changelog]: crate::guide::changelog\n",
            "[chart]: ../../../../../src/guide/speed.svg\n",
            "\n",
            include_str!($file)
        )]
        pub mod $name {}
    )*};
}

pages! {
    semantics "guide/semantics.md"
    limits "guide/limits.md"
    options "guide/options.md"
    transports "guide/transports.md"
    layers "guide/layers.md"
    store "guide/store.md"
    engines "guide/engines.md"
    performance "guide/performance.md"
    testing "guide/testing.md"
    design "guide/design.md"
    contributing "guide/contributing.md"
    changelog "guide/changelog.md"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    const HERE: &str = env!("CARGO_MANIFEST_DIR");

    fn files_below(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, extension, found);
            } else if path.extension().is_some_and(|given| given == extension) {
                found.push(path);
            }
        }
    }

    /// The pages of the guide and the README, with their text.
    fn pages() -> Vec<(PathBuf, String)> {
        let mut paths = vec![Path::new(HERE).join("README.md")];
        files_below(&Path::new(HERE).join("src/guide"), "md", &mut paths);
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        };
        paths.into_iter().map(read).collect()
    }

    /// Every test function of the repository: `tests` or `src`, the path below it, the function.
    fn test_functions() -> Vec<(&'static str, PathBuf, String)> {
        let mut functions = Vec::new();
        for top in ["tests", "src"] {
            let mut files = Vec::new();
            let dir = Path::new(HERE).join(top);
            files_below(&dir, "rs", &mut files);
            for file in files {
                let text = fs::read_to_string(&file).unwrap();
                let place = file.strip_prefix(&dir).unwrap().with_extension("");
                let mut lines = text.lines().map(str::trim_start);
                while lines.by_ref().any(|line| line.starts_with("#[test]")) {
                    let name = lines
                        .by_ref()
                        .find_map(|line| line.strip_prefix("fn ")?.split(['(', '<']).next());
                    functions.extend(name.map(|name| (top, place.clone(), name.to_owned())));
                }
            }
        }
        functions
    }

    /// Whether `tests/SUITE` or `src/ROOM` names the place of a file, wherever in the tree the
    /// suite or room stands.
    fn is_within(cited: &str, top: &str, place: &Path) -> bool {
        let Some((cited_top, cited_place)) = cited.split_once('/') else {
            return false;
        };
        let last = Path::new(cited_place).file_name();
        cited_top == top
            && place
                .components()
                .any(|part| Some(part.as_os_str()) == last)
    }

    #[test]
    fn every_test_that_the_guide_names_exists() {
        if !Path::new(HERE).join("tests").is_dir() {
            println!("skipped: a package has no tests");
            return;
        }
        let functions = test_functions();
        let mut named = 0;
        for (page, text) in pages() {
            for (place, function) in text.split('`').filter_map(|code| code.split_once("::")) {
                if !place.starts_with("tests/") && !place.starts_with("src/") {
                    continue;
                }
                named += 1;
                assert!(
                    functions
                        .iter()
                        .any(|(top, file, name)| name == function && is_within(place, top, file)),
                    "{}: there is no test {place}::{function}",
                    page.display()
                );
            }
        }
        assert!(named > 40, "only {named} tests are named");
    }

    #[test]
    fn every_link_of_the_guide_leads_to_a_file() {
        for (page, text) in pages() {
            let dir = page.parent().unwrap();
            let inline = text
                .split("](")
                .skip(1)
                .filter_map(|rest| rest.split(')').next());
            let definitions = text
                .lines()
                .filter(|line| line.starts_with('['))
                .filter_map(|line| Some(line.split_once("]: ")?.1));
            for target in inline.chain(definitions) {
                assert!(
                    target.starts_with("https://") || dir.join(target).is_file(),
                    "{}: {target}",
                    page.display()
                );
            }
        }
    }

    #[test]
    fn every_label_is_defined_and_every_page_is_a_module() {
        let modules: BTreeSet<_> = include_str!("guide.rs")
            .lines()
            .filter_map(|line| line.trim().strip_suffix(".md\"")?.rsplit('/').next())
            .collect();
        for (page, text) in pages().into_iter().skip(1) {
            let name = page.file_stem().unwrap().to_str().unwrap();
            assert!(modules.contains(name), "{name} is not in src/guide.rs");
            for label in &modules {
                assert_eq!(
                    text.replace(&format!("[{label}]: "), "")
                        .contains(&format!("[{label}]")),
                    text.contains(&format!("[{label}]: {label}.md")),
                    "{name}: [{label}]"
                );
            }
        }
    }

    #[test]
    fn the_front_page_is_short() {
        let lines = include_str!("../README.md").lines().count();
        assert!(lines <= 120, "README.md has {lines} lines");
    }
}
