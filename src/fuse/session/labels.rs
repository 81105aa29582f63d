//! SELinux's mount options: who mounts says which label the mount has, and the kernel, which alone
//! knows SELinux, reads it.
//!
//! A kernel without SELinux refuses a mount with such an option, so that it is told only where it
//! means something.

use crate::fuse::settings::Settings;

/// The file in which the kernel lists the file systems it has; SELinux brings one.
const FILE_SYSTEMS: &str = "/proc/filesystems";

/// The options for mount(2): those that were given where the kernel has SELinux, else none.
pub(super) fn mount_options(settings: &Settings) -> Vec<String> {
    if settings.selinux.is_empty() {
        return Vec::new();
    }
    let listed = std::fs::read_to_string(FILE_SYSTEMS).unwrap_or_default();
    for_kernel(settings, &listed)
}

fn for_kernel(settings: &Settings, file_systems: &str) -> Vec<String> {
    let has_selinux = file_systems
        .split_whitespace()
        .any(|word| word == "selinuxfs");
    let quoted = settings.selinux.iter().map(|(name, label)| {
        // Categories are separated by commas, as options are.
        if label.contains(',') {
            format!("{name}=\"{label}\"")
        } else {
            format!("{name}={label}")
        }
    });
    if has_selinux {
        return quoted.collect();
    }
    for option in quoted {
        log::debug!("{option} is left out: this kernel has no SELinux");
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_reach_a_kernel_that_knows_them() {
        let settings = Settings {
            selinux: vec![
                ("context", "u:o:t:s0:c1,c2".to_owned()),
                ("rootcontext", "u:o:t".to_owned()),
            ],
            ..Settings::default()
        };
        let with = "nodev\tselinuxfs\n\text4\n";
        assert_eq!(
            for_kernel(&settings, with),
            ["context=\"u:o:t:s0:c1,c2\"", "rootcontext=u:o:t"]
        );
        assert!(for_kernel(&settings, "nodev\tsysfs\n\text4\n").is_empty());
        assert!(mount_options(&Settings::default()).is_empty());
    }
}
