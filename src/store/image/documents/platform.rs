//! Operating system, architecture and variant of an image, and which of several is the machine's.

use serde::{Deserialize, Serialize};

use super::json::or_default;
use crate::store::base::{Result, StoreError};

/// What an image runs on, in the words of the OCI image-spec (`image-index.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// `amd64`, `arm64`, ..: Go's names.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// `v7` of `arm`, `v8` of `arm64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The machine's own.
    #[must_use]
    pub fn of_machine() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Reads `os/arch[/variant]`.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => (&"", &"", None),
        };
        if os.is_empty() || architecture.is_empty() || variant.is_some_and(|v| v.is_empty()) {
            return Err(StoreError::invalid(
                format!("'{text}' is not a platform"),
                "write OS/ARCH[/VARIANT], as in linux/arm64 or linux/arm/v7",
            ));
        }
        let architecture = match *architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            os: (*os).to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(|variant| (*variant).to_owned()),
        })
    }

    /// How well an image for `offered` runs on this: higher is better, `None` is not at all.
    #[must_use]
    pub fn suits(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (self.variant(), offered.variant()) {
            (wanted, offered) if wanted == offered => Some(u32::MAX),
            // An older variant of arm runs on a newer machine: the newest of those is best.
            (Some(wanted), Some(offered)) => {
                let (wanted, offered) = (version(wanted)?, version(offered)?);
                (offered < wanted).then_some(offered)
            }
            (None, Some(_)) => Some(1),
            (Some(_), None) => Some(0),
            (None, None) => Some(u32::MAX),
        }
    }

    /// The variant, where a missing one has a meaning (`arm64` is `arm64/v8`).
    fn variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None) => Some("v8"),
            (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

fn version(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.parse().ok()
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_best_one_is_chosen() {
        let best = |wanted: &str, offered: &[&str]| {
            let wanted = Platform::parse(wanted).unwrap();
            let rank = |text: &&&str| wanted.suits(&Platform::parse(text).unwrap());
            let found = offered
                .iter()
                .filter(|o| rank(o).is_some())
                .max_by_key(rank);
            found.map(|text| (*text).to_owned())
        };
        let all = [
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64",
            "windows/amd64",
        ];
        assert_eq!(best("linux/amd64", &all).as_deref(), Some("linux/amd64"));
        assert_eq!(best("linux/x86_64", &all).as_deref(), Some("linux/amd64"));
        assert_eq!(best("linux/arm64/v8", &all).as_deref(), Some("linux/arm64"));
        assert_eq!(best("linux/arm/v7", &all).as_deref(), Some("linux/arm/v7"));
        assert_eq!(best("linux/arm/v6", &all).as_deref(), Some("linux/arm/v6"));
        assert_eq!(best("linux/arm/v5", &all), None);
        assert_eq!(best("linux/s390x", &all), None);
        assert!(
            Platform::of_machine()
                .suits(&Platform::of_machine())
                .is_some()
        );
        for text in ["linux", "", "/", "linux/", "a/b/c/d", "linux/arm/"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }
}
