//! `unionmount container commit`.

use clap::Args;
use serde_json::json;

use crate::cli::commands::store_args::StoreArgs;
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::document;
use crate::store::CommitOptions;
use crate::store::reference::Reference;

/// `container commit`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct CommitArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// The name of the new image, REPOSITORY or REPOSITORY:TAG
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,

    /// Who made it
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub author: String,

    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,

    /// An instruction as in a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME,
    /// WORKDIR, STOPSIGNAL
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Makes the image, and prints its id.
///
/// # Errors
/// There is no such container, an instruction is wrong, or the disk fails.
pub(super) fn run(store: &StoreArgs, args: CommitArgs) -> Result<(), Failure> {
    let name = args.image.as_deref().map(Reference::parse).transpose()?;
    let options = CommitOptions {
        name,
        author: args.author,
        message: args.message,
        changes: args.change,
    };
    let id = store.open()?.commit(&args.container, &options)?;
    if args.json {
        let name = options.name.map(|name| name.to_string());
        return print(document(&json!({"Id": id, "Name": name}))?.as_bytes());
    }
    print(format!("{id}\n").as_bytes())
}
