//! The trees that are worked on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use fastrand::Rng;

use crate::{Outcome, PAGE, numbers};

/// Directories of the deep tree.
const DEEP_DIRS: usize = 40;

/// Deals the tree of about 57,000 entries (at 100 percent) over the layers:
///
/// * `wide/`: 410 directories that exist in every layer, 100 empty files each;
/// * `small/`: 15,000 files of 0.1 to 8 KiB in 100 directories;
/// * `one/`: a directory of 1,000 files and the file `cached` of 4 KiB.
///
/// Passing the same directory several times gives the merged tree itself.
pub(crate) fn make_tree(percent: u64, layers: &[String]) -> Outcome<()> {
    let layers: Vec<&Path> = layers.iter().map(Path::new).collect();
    let mut random = numbers();
    let mut turn = layers.iter().cycle();
    let mut next_layer = || turn.next().copied().ok_or("no layers");
    for layer in &layers {
        for dir in 0..41 * percent / 10 {
            fs::create_dir_all(layer.join(format!("wide/dir{dir}")))?;
        }
        for dir in 0..percent {
            fs::create_dir_all(layer.join(format!("small/dir{dir}")))?;
        }
        fs::create_dir_all(layer.join("one"))?;
    }
    for dir in 0..41 * percent / 10 {
        for file in 0..100 {
            File::create_new(next_layer()?.join(format!("wide/dir{dir}/file{file}")))?;
        }
    }
    for dir in 0..percent {
        for file in 0..150 {
            let path = next_layer()?.join(format!("small/dir{dir}/file{file}.c"));
            fs::write(path, text(100 + random.u64(..8 << 10), &mut random)?)?;
        }
    }
    for file in 0..1000 {
        File::create_new(next_layer()?.join(format!("one/file{file}")))?;
    }
    fs::write(next_layer()?.join("one/cached"), text(PAGE, &mut random)?)?;
    Ok(())
}

/// 40 directories that all layers have; each layer brings one C header to each. The newest layer
/// has a program, `all.c`, that includes every one of them.
pub(crate) fn make_deep(layers: &[String]) -> Outcome<()> {
    let mut all = String::new();
    for (number, layer) in layers.iter().enumerate() {
        for dir in 0..DEEP_DIRS {
            let path = Path::new(layer).join(format!("dir{dir}"));
            fs::create_dir_all(&path)?;
            let header = format!("extern int declared_{dir}_{number};\n");
            fs::write(path.join(format!("file{number}.h")), header)?;
            all.push_str(&format!("#include \"dir{dir}/file{number}.h\"\n"));
        }
    }
    let newest = layers.first().ok_or("no layers")?;
    fs::write(Path::new(newest).join("all.c"), all)?;
    Ok(())
}

pub(crate) fn make_files(dir: &Path, n: u64) -> Outcome<()> {
    let mut random = numbers();
    for i in 0..n {
        let dir = dir.join(format!("dir{}", i / 100));
        if i % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let length = 100 + random.u64(..8 << 10);
        fs::write(dir.join(format!("file{i}.txt")), text(length, &mut random)?)?;
    }
    Ok(())
}

/// Lines of hexadecimal digits: neither empty nor compressible to nothing.
fn text(length: u64, random: &mut Rng) -> Outcome<String> {
    let mut text = String::new();
    let length = usize::try_from(length)?;
    while text.len() < length {
        text.push_str(&format!("{:016x}\n", random.u64(..)));
    }
    text.truncate(length);
    Ok(text)
}

pub(crate) fn make_data(file: &str, mib: u64) -> Outcome<()> {
    let mut random = numbers();
    let mut file = File::create_new(file)?;
    for _ in 0..mib {
        let mut block = vec![0; 1 << 20];
        random.fill(&mut block);
        file.write_all(&block)?;
    }
    file.sync_all()?;
    Ok(())
}

/// A C project of `n` units, each with a header of its own, and a Makefile that builds them.
pub(crate) fn make_c(dir: &Path, n: u64) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    let mut objects = String::new();
    for unit in 0..n {
        let mut code =
            format!("#include <stdio.h>\n#include <stdlib.h>\n#include \"unit{unit}.h\"\n");
        for near in unit.saturating_sub(20)..unit {
            code.push_str(&format!("#include \"unit{near}.h\"\n"));
        }
        for function in 0..20 {
            code.push_str(&format!(
                "int f{unit}_{function}(int x) {{ for (int i = 0; i < x; i++) x ^= i * {function}; \
                 printf(\"%d\", x); return x; }}\n"
            ));
        }
        fs::write(dir.join(format!("unit{unit}.c")), code)?;
        let declarations: String = (0..20)
            .map(|function| format!("int f{unit}_{function}(int x);\n"))
            .collect();
        fs::write(dir.join(format!("unit{unit}.h")), declarations)?;
        objects.push_str(&format!(" unit{unit}.o"));
    }
    let makefile =
        format!("libunits.a:{objects}\n\tar rc $@ $^\n%.o: %.c\n\tgcc -O1 -c -o $@ $<\n");
    fs::write(dir.join("Makefile"), makefile)?;
    Ok(())
}

/// A Rust crate of `n` modules, without dependencies.
pub(crate) fn make_rust(dir: &Path, n: u64) -> Outcome<()> {
    fs::create_dir_all(dir.join("src"))?;
    let manifest = "[package]\nname = \"units\"\nversion = \"0.1.0\"\nedition = \"2021\"\n";
    fs::write(dir.join("Cargo.toml"), manifest)?;
    let mut root = String::new();
    for unit in 0..n {
        root.push_str(&format!("pub mod unit{unit};\n"));
        let code: String = (0..20)
            .map(|function| {
                format!(
                    "pub fn f{function}(x: u64) -> String {{ \
                     (0..x).map(|i| (i * {function}).to_string()).collect() }}\n"
                )
            })
            .collect();
        fs::write(dir.join(format!("src/unit{unit}.rs")), code)?;
    }
    fs::write(dir.join("src/lib.rs"), root)?;
    Ok(())
}

/// `n` transactions of one row each, as SQL for sqlite3(1).
pub(crate) fn make_sql(file: &Path, n: u64) -> Outcome<()> {
    let sql: String = (0..n)
        .map(|i| format!("insert into t values ({i}, 'row number {i}');\n"))
        .collect();
    fs::write(file, sql)?;
    Ok(())
}
