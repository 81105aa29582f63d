//! `unionmount man` and `unionmount completions`: documents made from the definition of the command
//! line.

use std::path::Path;

use super::args::{self, CompletionsArgs, ManArgs};
use super::exit::{Failure, print};

/// Prints the manual page, or writes all pages into a directory that exists.
///
/// # Errors
/// [`Failure::Operation`] when a page cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    match &args.dir {
        Some(dir) => {
            clap_mangen::generate_to(args::command(), dir).map_err(|err| cannot_write(dir, &err))
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(args::command())
                .render(&mut page)
                .map_err(|err| cannot_write(Path::new("the manual page"), &err))?;
            print(&page)
        }
    }
}

/// Prints a completion script.
///
/// # Errors
/// [`Failure::Operation`] when standard output cannot be written.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    // Into memory first: clap_complete panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "unionmount", &mut script);
    print(&script)
}

fn cannot_write(place: &Path, err: &std::io::Error) -> Failure {
    Failure::Operation(format!(
        "cannot write into '{}': {err}; name a directory that exists and can be written",
        place.display()
    ))
}
