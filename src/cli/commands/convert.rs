//! `unionmount convert`.

use std::path::PathBuf;

use clap::Args;

use crate::check::convert::{Converted, Form, convert};
use crate::cli::ui::exit::{Failure, print};

pub(super) const EXAMPLES: &str = "\
A conversion that was interrupted is finished by running it again; meanwhile this program sees the same tree as ever.

Examples:
  unionmount convert --to char layer    so that kernel overlayfs can mount it
  unionmount convert --to wh layer      so that engines with a mount program can read it";

/// A form of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum MarkForm {
    /// `.wh.` files, as OCI layers and engines with a mount program have them
    Wh,
    /// 0/0 devices and opaque xattrs, as kernel overlayfs mounts them
    Char,
}

/// `unionmount convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// The form that all marks get
    #[arg(long, value_name = "FORM")]
    pub to: MarkForm,

    /// The directory of the layer; it must not be mounted
    #[arg(value_name = "DIR")]
    pub layer: PathBuf,
}

/// Rewrites the marks of a layer and says how many.
///
/// # Errors
/// [`Failure::Operation`]: the layer is in use, or cannot be read or written, or cannot have that
/// form.
pub(super) fn run(args: &ConvertArgs) -> Result<(), Failure> {
    let to = match args.to {
        MarkForm::Wh => Form::Wh,
        MarkForm::Char => Form::Char,
    };
    let done = convert(&args.layer, to)?;
    print(told(done).as_bytes())
}

fn told(done: Converted) -> String {
    let Converted {
        whiteouts,
        opaque,
        leftovers,
        kept,
    } = done;
    let mut text = format!("{whiteouts} whiteouts and {opaque} opaque marks rewritten");
    if leftovers > 0 {
        text.push_str(&format!(", {leftovers} leftovers removed"));
    }
    if kept > 0 {
        text.push_str(&format!(
            ", {kept} whiteouts of names above 251 bytes stay devices"
        ));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told() {
        let done = Converted {
            whiteouts: 2,
            opaque: 1,
            ..Converted::default()
        };
        assert_eq!(told(done), "2 whiteouts and 1 opaque marks rewritten\n");
        let done = Converted {
            leftovers: 3,
            kept: 4,
            ..done
        };
        assert!(told(done).ends_with(
            ", 3 leftovers removed, 4 whiteouts of names above 251 bytes stay devices\n"
        ));
    }
}
