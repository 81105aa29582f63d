//! What was found, as a table for people and as JSON for programs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something in the work directory that no mount uses.
    StaleWork,
    /// Marks of both forms in one layer.
    MixedForms,
    /// A whiteout that hides nothing.
    IdleWhiteout,
    /// A redirect that leads nowhere.
    DanglingRedirect,
    /// A remembered `st_ino` of nothing.
    DanglingOrigin,
    /// An unreadable xattr that keeps owner and mode.
    OddRecord,
}

impl Kind {
    /// Its name in both forms of the report.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::StaleWork => "stale-work",
            Self::MixedForms => "mixed-marks",
            Self::IdleWhiteout => "idle-whiteout",
            Self::DanglingRedirect => "dangling-redirect",
            Self::DanglingOrigin => "dangling-origin",
            Self::OddRecord => "odd-override",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The layer, or the work directory.
    pub layer: PathBuf,
    /// Where in it; empty for its root.
    pub path: PathBuf,
    /// What that means, in a sentence.
    pub explanation: String,
    /// It is wrong no longer.
    pub mended: bool,
}

/// A name as a path.
pub(super) fn path_of(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// A table with one line for each finding, or a line that says that there is none.
#[must_use]
pub(crate) fn table(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "clean\n".to_owned();
    }
    let row = |finding: &Finding| {
        let at = finding.layer.join(&finding.path);
        let mended = if finding.mended { "mended" } else { "" };
        [
            finding.kind.name().to_owned(),
            mended.to_owned(),
            plain(&at),
            finding.explanation.clone(),
        ]
    };
    let heads = ["PROBLEM", "", "WHERE", "WHAT IT MEANS"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(heads)
        .chain(findings.iter().map(row))
        .collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [kind, mended, at, explanation] in &rows {
        let [first, second, third] = widths;
        let line = format!("{kind:first$}  {mended:second$}  {at:third$}  {explanation}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `{"problems": [{"kind", "layer", "path", "explanation", "mended"} ..], "left": N}`; bytes of a
/// path that are no text are replaced.
#[must_use]
pub(crate) fn json(findings: &[Finding]) -> String {
    let left = findings.iter().filter(|finding| !finding.mended).count();
    let problems: Vec<_> = findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "kind": finding.kind.name(),
                "layer": finding.layer.to_string_lossy(),
                "path": finding.path.to_string_lossy(),
                "explanation": finding.explanation,
                "mended": finding.mended,
            })
        })
        .collect();
    format!(
        "{:#}\n",
        serde_json::json!({ "problems": problems, "left": left })
    )
}

/// A path on one line.
fn plain(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_in_both_forms() {
        let finding = Finding {
            kind: Kind::IdleWhiteout,
            layer: "/u".into(),
            path: "a\nb".into(),
            explanation: "it hides nothing".into(),
            mended: true,
        };
        let told = table(std::slice::from_ref(&finding));
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            r"idle-whiteout  mended  /u/a\nb  it hides nothing"
        );
        assert_eq!(table(&[]), "clean\n");
        let told = json(&[finding]);
        for part in [
            r#""kind": "idle-whiteout""#,
            r#""path": "a\nb""#,
            r#""left": 0"#,
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
