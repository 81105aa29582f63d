//! `unionmount check`.

use std::path::PathBuf;

use clap::Args;

use crate::check::inspect::{Subject, inspect};
use crate::check::report::{Finding, json, table};
use crate::cli::ui::exit::{Failure, print};

pub(super) const HELP: &str = "\
Found, and mended with --repair where it is in the upper or the work directory:
  stale-work         left in the work directory by a mount that was killed
  mixed-marks        .wh. files and devices or xattrs in one layer
  idle-whiteout      a whiteout of a name that no lower layer has
  dangling-redirect  a renamed directory whose lower part is not there
  dangling-origin    a remembered inode number of an object that is not there
  odd-override       an xattr that keeps owner and mode and cannot be read

Exit codes: 0 clean, or all of it mended; 1 problems are left.

Examples:
  unionmount check --lower base --upper changes --work work
  unionmount check --repair --lower base --upper changes --work work";

/// `unionmount check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// A lower layer; repeat it for more layers, newest first
    #[arg(long = "lower", value_name = "DIR")]
    pub lowers: Vec<PathBuf>,

    /// The upper directory
    #[arg(long, value_name = "DIR")]
    pub upper: Option<PathBuf>,

    /// Its work directory
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,

    /// Mend what is found in the upper and the work directory; refused while they are mounted
    #[arg(long)]
    pub repair: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Looks at layers and tells what is wrong with them.
///
/// # Errors
/// [`Failure::Usage`]: nothing is given to look at. [`Failure::Operation`]: problems are left, or
/// the layers cannot be read.
pub(super) fn run(args: CheckArgs) -> Result<(), Failure> {
    let CheckArgs {
        lowers,
        upper,
        work,
        repair,
        json: as_json,
    } = args;
    if lowers.is_empty() && upper.is_none() {
        return Err(Failure::Usage(
            "no layer is given; add --lower DIR, newest first, or --upper DIR".to_owned(),
        ));
    }
    if repair && upper.is_none() {
        return Err(Failure::Usage(
            "lower layers are never written, so --repair needs --upper DIR and --work DIR"
                .to_owned(),
        ));
    }
    let subject = Subject {
        lowers,
        upper,
        work,
    };
    let findings = inspect(&subject, repair)?;
    let told = if as_json {
        json(&findings)
    } else {
        table(&findings)
    };
    print(told.as_bytes())?;
    verdict(&findings, repair)
}

fn verdict(findings: &[Finding], repair: bool) -> Result<(), Failure> {
    let left = findings.iter().filter(|finding| !finding.mended).count();
    if left == 0 {
        return Ok(());
    }
    let problems = if left == 1 { "problem" } else { "problems" };
    Err(Failure::Operation(if repair {
        format!(
            "{left} {problems} left in lower layers, which are never written; make those anew, or use 'unionmount convert'"
        )
    } else {
        format!(
            "{left} {problems} found; 'unionmount check --repair' mends what is in the upper and the work directory"
        )
    }))
}
