//! `unionmount check`.

use super::args::CheckArgs;
use super::exit::{Failure, print};
use crate::check::inspect::{Subject, inspect};
use crate::check::report::{Finding, json, table};

/// Looks at layers and tells what is wrong with them.
///
/// # Errors
/// [`Failure::Usage`]: nothing is given to look at. [`Failure::Operation`]: problems are left, or
/// the layers cannot be read.
pub(crate) fn run(args: CheckArgs) -> Result<(), Failure> {
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
