//! `--mount` and `-v`: what is shown inside a container, as docker's command line has it.

use std::path::PathBuf;

use crate::cli::ui::exit::Failure;
use crate::store::{BindRequest, BindSource};

fn wrong(option: &str, text: &str, why: &str) -> Failure {
    Failure::Usage(format!(
        "{option} '{}': {why}; write as in --mount type=volume,source=data,target=/data[,readonly] or -v data:/data[:ro]",
        text.escape_debug()
    ))
}

/// Reads `type=volume|bind,source=..,target=..[,readonly]`.
///
/// # Errors
/// [`Failure::Usage`].
pub(super) fn from_mount(text: &str) -> Result<BindRequest, Failure> {
    let wrong = |why: &str| wrong("--mount", text, why);
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut no_copy) = (false, false);
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (field.trim(), None),
        };
        let switch = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(wrong(&format!("'{key}' is true or false"))),
        };
        match (key, value) {
            ("type", Some(value)) => kind = value,
            ("source" | "src", Some(value)) if !value.is_empty() => source = Some(value),
            ("target" | "destination" | "dst", Some(value)) if !value.is_empty() => {
                target = Some(value);
            }
            ("readonly" | "ro", _) => read_only = switch()?,
            ("volume-nocopy", _) => no_copy = switch()?,
            _ => return Err(wrong(&format!("'{field}' is not understood"))),
        }
    }
    let target = target.ok_or_else(|| wrong("the target is missing"))?;
    let source = match (kind, source) {
        ("volume", source) => source.map(|name| BindSource::Volume(name.to_owned())),
        ("bind", Some(source)) => Some(BindSource::Directory(PathBuf::from(source))),
        ("bind", None) => return Err(wrong("the source is missing")),
        _ => return Err(wrong("the type is volume or bind")),
    };
    Ok(BindRequest {
        source,
        target: PathBuf::from(target),
        read_only,
        no_copy,
    })
}

/// Reads `[VOLUME|DIR:]DIR[:ro|rw|nocopy]`.
///
/// # Errors
/// [`Failure::Usage`].
pub(in crate::cli::commands) fn from_volume(text: &str) -> Result<BindRequest, Failure> {
    let wrong = |why: &str| wrong("-v", text, why);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, flags) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, flags] => (Some(*source), *target, *flags),
        _ => return Err(wrong("it has more than three parts")),
    };
    let (mut read_only, mut no_copy) = (false, false);
    for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
        match flag {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => no_copy = true,
            _ => return Err(wrong(&format!("'{flag}' is not understood"))),
        }
    }
    if target.is_empty() || source == Some("") {
        return Err(wrong("a part of it is empty"));
    }
    let source = source.map(|source| {
        if source.starts_with(['/', '.']) {
            BindSource::Directory(PathBuf::from(source))
        } else {
            BindSource::Volume(source.to_owned())
        }
    });
    Ok(BindRequest {
        source,
        target: PathBuf::from(target),
        read_only,
        no_copy,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(request: &BindRequest) -> String {
        let source = match &request.source {
            None => "new".to_owned(),
            Some(BindSource::Volume(name)) => format!("volume {name}"),
            Some(BindSource::Directory(path)) => format!("dir {}", path.display()),
        };
        let flags = (request.read_only, request.no_copy);
        format!("{source} at {} {flags:?}", request.target.display())
    }

    #[test]
    fn both_forms_are_read() {
        let table = [
            (
                "type=volume,source=data,target=/d",
                "volume data at /d (false, false)",
            ),
            (
                "src=data,dst=/d,readonly",
                "volume data at /d (true, false)",
            ),
            (
                "type=bind,source=/srv,destination=/d,ro=true",
                "dir /srv at /d (true, false)",
            ),
            ("target=/d,volume-nocopy", "new at /d (false, true)"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(&from_mount(text).unwrap()), expected, "{text}");
        }
        let table = [
            ("data:/d", "volume data at /d (false, false)"),
            ("/srv:/d:ro", "dir /srv at /d (true, false)"),
            ("./here:/d:rw,nocopy", "dir ./here at /d (false, true)"),
            ("/d", "new at /d (false, false)"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(&from_volume(text).unwrap()), expected, "{text}");
        }
        for text in [
            "",
            "type=tmpfs,target=/d",
            "type=bind,target=/d",
            "source=x",
            "target=/d,ro=maybe",
            "x=y,target=/d",
        ] {
            assert!(from_mount(text).is_err(), "{text}");
        }
        for text in ["", "a:/b:zz", "a:/b:ro:x", ":/b", "a:"] {
            assert!(from_volume(text).is_err(), "{text}");
        }
    }
}
