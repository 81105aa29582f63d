//! `unionmount container create`.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::bind;
use crate::cli::commands::store_args::StoreArgs;
use crate::cli::mounting::privilege;
use crate::cli::ui::exit::{Failure, complain, print};
use crate::cli::ui::listing::document;
use crate::store::{Driver, NewContainer};

pub(super) const EXAMPLES: &str = "\
Examples:
  unionmount container create debian:12
  unionmount container create --name box -v data:/var/lib/app -v /srv/conf:/etc/app:ro debian:12
  unionmount container create --mount type=volume,source=data,target=/data,readonly debian:12";

/// How a container's tree is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli::commands) enum DriverArg {
    /// fuse where it is available, else vfs
    #[default]
    Auto,
    /// A union mount
    Fuse,
    /// A copy of the image's tree
    Vfs,
}

impl DriverArg {
    /// The driver that is used here.
    ///
    /// # Errors
    /// FUSE was asked for and is not available.
    fn choose(self) -> Result<Driver, Failure> {
        match (self, privilege::fuse_is_available()) {
            (Self::Vfs, _) => Ok(Driver::Vfs),
            (_, Ok(())) => Ok(Driver::Fuse),
            (Self::Auto, Err(why)) => {
                complain(&format!(
                    "FUSE is not available, the tree is copied (vfs): {why}"
                ));
                Ok(Driver::Vfs)
            }
            (Self::Fuse, Err(why)) => Err(why.into()),
        }
    }
}

/// `container create`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct CreateArgs {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Its name [default: two words]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Show a volume or directory in it: type=volume|bind,source=..,target=DIR; add ,readonly or
    /// ,volume-nocopy
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,

    /// The same in short: [VOLUME|DIR:]DIR[:ro|rw|nocopy]
    #[arg(short, long, value_name = "VOLUME")]
    pub volume: Vec<String>,

    /// How its tree is shown
    #[arg(long, value_enum, default_value_t)]
    pub driver: DriverArg,

    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Makes the container, and prints its id.
///
/// # Errors
/// There is no such image, the name is taken, or FUSE was asked for and is not available.
pub(super) fn run(store: &StoreArgs, args: CreateArgs) -> Result<(), Failure> {
    let mut binds = Vec::new();
    for text in &args.mount {
        binds.push(bind::from_mount(text)?);
    }
    for text in &args.volume {
        binds.push(bind::from_volume(text)?);
    }
    let mut store = store.open()?;
    let container = store.create_container(&NewContainer {
        image: args.image,
        name: args.name,
        binds,
        driver: args.driver.choose()?,
        temporary: false,
        mountpoint: None,
    })?;
    if args.json {
        let report = json!({
            "Id": container.id,
            "Name": container.name,
            "Driver": container.driver.name(),
        });
        return print(document(&report)?.as_bytes());
    }
    print(format!("{}\n", container.id).as_bytes())
}
