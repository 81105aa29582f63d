//! `unionmount container`: writable layers over images. Making, mounting, comparing, committing,
//! removing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::args::UmountArgs;
use super::exit::{Failure, complain, print};
use super::listing::{
    InspectArgs, ListArgs, Listing, SHORT_COMMAND, document, id, print_inspected, shortened,
};
use super::output::Output;
use super::store_args::{StoreArgs, for_each};
use super::{bind, container_diff, container_mount, privilege, umount, units};
use crate::store::reference::Reference;
use crate::store::{
    CommitOptions, Container, Driver, NewContainer, Paths, Status, Store, container_of_source,
    in_use, mountpoint, mounts, status_word, time,
};

const EXAMPLES: &str = "\
Examples:
  unionmount container create --name box debian:12
  cd $(unionmount container mount box)
  unionmount container diff box
  unionmount container commit --change 'CMD [\"/bin/app\"]' box app:1
  unionmount container rm --force box";

const CREATE_EXAMPLES: &str = "\
Examples:
  unionmount container create debian:12
  unionmount container create --name box -v data:/var/lib/app -v /srv/conf:/etc/app:ro debian:12
  unionmount container create --mount type=volume,source=data,target=/data,readonly debian:12";

/// `unionmount container`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ContainerArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// What to do with containers.
    #[command(subcommand)]
    pub command: ContainerCommand,
}

/// The subcommands of `container`.
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    /// Make a container of an image, and print its id
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List containers
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Mount a container, and print where
    Mount(container_mount::MountContainerArgs),
    /// Unmount containers
    #[command(visible_alias = "unmount")]
    Umount(UmountContainerArgs),
    /// Show what was added (A), changed (C) and deleted (D)
    Diff(container_diff::DiffArgs),
    /// Make an image of a container's changes, and print its id
    Commit(CommitArgs),
    /// Write what a container shows as a flat tar
    Export(ExportArgs),
    /// Remove containers with their changes
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
    /// Show everything about containers, as JSON
    Inspect(InspectContainerArgs),
}

/// How a container's tree is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DriverArg {
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
    pub(crate) fn choose(self) -> Result<Driver, Failure> {
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
pub(crate) struct CreateArgs {
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

/// `container ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Show the bytes of the writable layer, and with the image's
    #[arg(short, long)]
    pub size: bool,

    /// How it is printed.
    #[command(flatten)]
    pub list: ListArgs,
}

/// `container umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountContainerArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// Detach now, even when it is in use
    #[arg(long, conflicts_with = "force")]
    pub lazy: bool,

    /// Remove a mount whose daemon was killed or hangs
    #[arg(long)]
    pub force: bool,
}

/// `container commit`.
#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
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

/// `container export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// Write into this file, which appears when it is complete [default: -, standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `container rm`.
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// Unmount it first
    #[arg(short, long)]
    pub force: bool,

    /// Remove its volumes without a name, too
    #[arg(short, long)]
    pub volumes: bool,
}

/// `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectContainerArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,

    /// How it is printed.
    #[command(flatten)]
    pub inspect: InspectArgs,
}

/// Carries it out.
///
/// # Errors
/// What the user asked for cannot be done; see [`crate::store`].
pub(crate) fn run(args: ContainerArgs) -> Result<(), Failure> {
    let store = args.store;
    match args.command {
        ContainerCommand::Create(args) => create(&store, args),
        ContainerCommand::Ls(args) => list(&store, &args),
        ContainerCommand::Mount(args) => container_mount::run(&store, &args),
        ContainerCommand::Umount(args) => {
            let mut store = store.open()?;
            for_each(&args.containers, |word| umount_one(&mut store, word, &args))
        }
        ContainerCommand::Diff(args) => container_diff::run(&store, &args),
        ContainerCommand::Commit(args) => commit(&store, args),
        ContainerCommand::Export(args) => export(&store, &args),
        ContainerCommand::Rm(args) => {
            let mut store = store.open()?;
            for_each(&args.containers, |word| remove(&mut store, word, &args))
        }
        ContainerCommand::Inspect(args) => {
            let (mut store, mounts) = (store.open()?, mounts()?);
            let mut values = Vec::new();
            for word in &args.containers {
                values.push(store.inspect_container(word, &mounts)?);
            }
            print_inspected(values, &args.inspect)
        }
    }
}

fn create(store: &StoreArgs, args: CreateArgs) -> Result<(), Failure> {
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

fn list(store: &StoreArgs, args: &LsArgs) -> Result<(), Failure> {
    let (store, mounts) = (store.open()?, mounts()?);
    let no_trunc = args.list.no_trunc;
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    for container in store.containers()? {
        let status = store.status(&container, &mounts)?;
        let sizes = if args.size {
            Some(store.container_size(&container)?)
        } else {
            None
        };
        lines.push(line(&container, &status, sizes, no_trunc));
        let mut exact = json!({
            "ID": container.id,
            "Image": container.image_name,
            "ImageID": container.image,
            "Command": container.command,
            "Created": container.created,
            "Status": status_word(&status),
            "Mountpoint": mountpoint(&status),
            "Names": container.name,
            "Driver": container.driver.name(),
            "Temporary": container.temporary,
        });
        if let Some((own, whole)) = sizes {
            exact["Size"] = json!(own);
            exact["VirtualSize"] = json!(whole);
        }
        documents.push(exact);
    }
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    Listing {
        columns: &columns,
        more: &[
            ("SIZE", "Size"),
            ("CREATED AT", "CreatedAt"),
            ("MOUNTPOINT", "Mountpoint"),
        ],
        lines,
        quiet: "ID",
        document: Value::Array(documents),
    }
    .print(&args.list)
}

fn line(
    container: &Container,
    status: &Status,
    sizes: Option<(u64, u64)>,
    no_trunc: bool,
) -> Value {
    json!({
        "ID": id(&container.id, no_trunc),
        "Image": container.image_name,
        "Command": format!("\"{}\"", shortened(&container.command, no_trunc, Some(SHORT_COMMAND))),
        "RunningFor": time::ago(Some(container.created)),
        "CreatedAt": time::format(container.created),
        "Status": status_word(status),
        "Mountpoint": mountpoint(status),
        "Names": container.name,
        "Driver": container.driver.name(),
        "Size": sizes.map_or_else(String::new, |(own, whole)| {
            format!("{} (virtual {})", units::size(own), units::size(whole))
        }),
    })
}

fn umount_one(store: &mut Store, word: &str, args: &UmountContainerArgs) -> Result<(), Failure> {
    let container = store.container(word)?;
    let mountpoint = match settled(store, &container, |status| *status != Status::Elsewhere)? {
        (Status::Mounted(path) | Status::Dead(path), _) => path,
        // Somebody else was just unmounting it.
        (Status::Idle, true) => return print(format!("{word}\n").as_bytes()),
        (status, _) => {
            return Err(Failure::Operation(format!(
                "container {} is not mounted here ({}); see 'unionmount container ls'",
                container.name,
                status_word(&status)
            )));
        }
    };
    let taken = umount::take_away(&UmountArgs {
        lazy: args.lazy,
        force: args.force,
        mountpoint,
    });
    match taken {
        Ok(_) => ended(store, &container, args.lazy)?,
        // It is not there any more when somebody else was faster, who also does the rest.
        Err(failure) => {
            let (status, _) = settled(store, &container, |status| *status == Status::Idle)?;
            if matches!(status, Status::Mounted(_) | Status::Dead(_)) {
                return Err(failure);
            }
        }
    }
    print(format!("{word}\n").as_bytes())
}

/// The status of a container when it is one that is `expected`, or after a while; and whether it
/// was another before.
fn settled(
    store: &Store,
    container: &Container,
    expected: impl Fn(&Status) -> bool,
) -> Result<(Status, bool), Failure> {
    const LOOKS: u32 = 50;
    const PAUSE: Duration = Duration::from_millis(20);
    let mut waited = false;
    for _ in 0..LOOKS {
        let status = store.status(container, &mounts()?)?;
        if expected(&status) {
            return Ok((status, waited));
        }
        waited = true;
        std::thread::sleep(PAUSE);
    }
    Ok((store.status(container, &mounts()?)?, waited))
}

/// What becomes of a container that was unmounted.
fn ended(store: &mut Store, container: &Container, lazy: bool) -> Result<(), Failure> {
    if !container.temporary {
        store.forget_mountpoint(&container.id)?;
    } else if !lazy {
        store.remove_container(&container.id, true)?;
    }
    Ok(())
}

/// After `unionmount umount` of something that may have been a container: a temporary one is
/// removed.
///
/// # Errors
/// The store cannot be opened, or the container cannot be removed.
pub(crate) fn after_umount(source: &str) -> Result<(), Failure> {
    let Some((root, id)) = container_of_source(source) else {
        return Ok(());
    };
    // What is mounted there may be somebody else's: a catalog of his is not opened.
    if !Paths::new(root.clone()).is_ours() {
        return Ok(());
    }
    let mut store = Store::open(Some(&root))?;
    let Some(container) = store.find_container(&id)? else {
        return Ok(());
    };
    let in_use = store.status(&container, &mounts()?)? != Status::Idle;
    ended(&mut store, &container, in_use)
}

fn commit(store: &StoreArgs, args: CommitArgs) -> Result<(), Failure> {
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

fn export(store: &StoreArgs, args: &ExportArgs) -> Result<(), Failure> {
    let output = Output::new(args.output.as_deref())?;
    let store = store.open()?;
    output.write(|out| Ok(store.export(&args.container, out)?))
}

fn remove(store: &mut Store, word: &str, args: &RmArgs) -> Result<(), Failure> {
    let container = store.container(word)?;
    match store.status(&container, &mounts()?)? {
        Status::Mounted(path) | Status::Dead(path) if args.force => unmount_by_force(&path)?,
        Status::Dead(_) | Status::Mounted(_) => return Err(in_use(&container).into()),
        _ => {}
    }
    let container = store.remove_container(&container.id, args.volumes)?;
    print(format!("{}\n", container.name).as_bytes())
}

/// Unmounts as `umount` does, and if that does not help as `umount --force`.
fn unmount_by_force(mountpoint: &Path) -> Result<(), Failure> {
    let request = |force| UmountArgs {
        lazy: false,
        force,
        mountpoint: mountpoint.to_owned(),
    };
    if umount::take_away(&request(false)).is_ok() {
        return Ok(());
    }
    umount::take_away(&request(true)).map(drop)
}
