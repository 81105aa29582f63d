//! Where archives go that a command writes: into a file, which appears when it is complete, or to
//! standard output.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;

use super::exit::Failure;
use super::shown;
use crate::archive::disk::StagedFile;
use crate::cancel::Cancellable;

/// Where an archive goes.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Output<'a>(Option<&'a Path>);

impl<'a> Output<'a> {
    /// A file, or standard output: `-`, or no name.
    ///
    /// # Errors
    /// [`Failure::Usage`]: standard output is a terminal.
    pub(in crate::cli) fn new(name: Option<&'a Path>) -> Result<Self, Failure> {
        let file = name.filter(|path| *path != Path::new("-"));
        if file.is_none() && std::io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "an archive is not written to a terminal; name a file with --output, or use a pipe"
                    .to_owned(),
            ));
        }
        Ok(Self(file))
    }

    /// The file; `None` when it is standard output.
    #[must_use]
    pub(in crate::cli) fn file(self) -> Option<&'a Path> {
        self.0
    }

    /// Has the archive written.
    ///
    /// # Errors
    /// Those of `write`; the file cannot be made or written, and is not there then, or as it was.
    pub(in crate::cli) fn write<T>(
        self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(path) = self.0 else {
            let failed = |error: std::io::Error| {
                Failure::Operation(format!(
                    "cannot write to standard output: {error}; check where it is redirected to"
                ))
            };
            // The standard library's own buffer repeats calls that are interrupted.
            let stdout = std::io::stdout().as_fd().try_clone_to_owned();
            let stdout = File::from(stdout.map_err(failed)?);
            let mut out = BufWriter::new(Cancellable(stdout));
            let written = write(&mut out)?;
            out.flush().map_err(failed)?;
            return Ok(written);
        };
        let failed = |cure: &'static str| {
            move |error: std::io::Error| {
                Failure::Operation(format!("cannot write {}: {error}; {cure}", shown(path)))
            }
        };
        let staged = StagedFile::new(path).map_err(failed(
            "name a file in a directory that exists and can be written",
        ))?;
        let mut out = BufWriter::new(Cancellable(staged.writer()));
        let written = write(&mut out)?;
        let on_disk = failed("check the disk that it is on");
        out.flush().map_err(on_disk)?;
        drop(out);
        staged.publish().map_err(on_disk)?;
        Ok(written)
    }
}
