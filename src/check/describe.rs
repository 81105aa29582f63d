//! What is odd about an entry, in a sentence.

use super::report::{Finding, Kind, path_of};
use super::subject::Subject;
use crate::layer::dir::Source;
use crate::layer::marks::Mark;
use crate::union::audit::{Found, Oddity};

/// Returns the finding about an entry.
pub(super) fn describe((path, oddity): &Found, subject: &Subject) -> Finding {
    let mut layer = subject.upper.clone().unwrap_or_default();
    let (kind, explanation) = match oddity {
        Oddity::IdleWhiteout(mark) => {
            let form = match mark {
                Mark::Beside => "a .wh. file",
                Mark::InPlace => "a whiteout",
            };
            (
                Kind::IdleWhiteout,
                format!("{form} hides this name, and no lower layer has it"),
            )
        }
        Oddity::DanglingRedirect(source, target) => {
            if let Source::Lower(number) = source {
                let lower = subject.lowers.get(usize::from(*number));
                layer = lower.cloned().unwrap_or_default();
            }
            (
                Kind::DanglingRedirect,
                format!(
                    "it continues at {}, which no layer below has: its lower part is lost",
                    target.escape_ascii()
                ),
            )
        }
        Oddity::DanglingOrigin(xattr) => (
            Kind::DanglingOrigin,
            format!(
                "{} names an object that is not there, or belongs to another one; st_ino is the upper's own",
                xattr.escape_ascii()
            ),
        ),
        Oddity::OddRecord(xattr) => (
            Kind::OddRecord,
            format!(
                "{} cannot be read, so owner and mode are those of the disk",
                xattr.escape_ascii()
            ),
        ),
    };
    let path = path.iter().map(|name| path_of(name)).collect();
    Finding {
        kind,
        layer,
        path,
        explanation,
        mended: false,
    }
}
