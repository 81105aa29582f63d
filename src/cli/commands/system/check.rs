//! `unionmount system check`.

use clap::Args;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;
use crate::cli::ui::visible;
use crate::store::CheckOptions;

/// `system check`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct CheckArgs {
    /// Put right what can be
    #[arg(long)]
    pub repair: bool,

    /// Read all layers, verify their digests, and compare their directories with their archives
    #[arg(long)]
    pub deep: bool,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Compares the disk with the catalog.
///
/// # Errors
/// The store cannot be opened; findings are left.
pub(super) fn run(store: &StoreArgs, args: &CheckArgs) -> Result<(), Failure> {
    let report = store.open()?.check(CheckOptions {
        deep: args.deep,
        repair: args.repair,
    })?;
    if args.json {
        print(document(&report)?.as_bytes())?;
    } else {
        let mut text = String::new();
        for finding in &report.findings {
            let end = if finding.repaired {
                "repaired"
            } else {
                &finding.cure
            };
            text.push_str(&format!("{}; {end}\n", visible::line(&finding.what)));
        }
        text.push_str(&format!(
            "{} layers, {} images, {} containers, {} volumes: {}\n",
            report.layers,
            report.images,
            report.containers,
            report.volumes,
            match report.findings.len() {
                0 => "all is well".to_owned(),
                1 => "1 finding".to_owned(),
                count => format!("{count} findings"),
            }
        ));
        print(text.as_bytes())?;
    }
    if report.is_bad() {
        let bad = report
            .findings
            .iter()
            .filter(|finding| !finding.repaired)
            .count();
        return Err(Failure::Operation(format!(
            "{bad} of the findings are not repaired; see above, or run 'unionmount system check --repair'"
        )));
    }
    Ok(())
}
