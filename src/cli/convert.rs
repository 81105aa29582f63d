//! `unionmount convert`.

use super::args::{ConvertArgs, MarkForm};
use super::exit::{Failure, print};
use crate::check::convert::{Converted, Form, convert};

/// Rewrites the marks of a layer and says how many.
///
/// # Errors
/// [`Failure::Operation`]: the layer is in use, or cannot be read or written, or cannot have that
/// form.
pub(crate) fn run(args: &ConvertArgs) -> Result<(), Failure> {
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
