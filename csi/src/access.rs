//! Ways of access. A namespace is files for many, so every mode that mounts is there; block devices are not.

use granary_core::Result;

use crate::proto::VolumeCapability;
use crate::proto::volume_capability::AccessType;
use crate::proto::volume_capability::access_mode::Mode;
use crate::status::invalid;

/// What is asked for, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub read_only: bool,
    /// As after `mount -o`.
    pub mount_flags: Vec<String>,
}

/// Mount flags of a PV that a namespace's mount has.
const FLAGS: [&str; 9] =
    ["ro", "rw", "noatime", "relatime", "nodiratime", "nosuid", "nodev", "noexec", "strictatime"];

impl Access {
    /// Errors: `Invalid` for what is none, or cannot be.
    pub fn parse(capability: Option<&VolumeCapability>) -> Result<Access> {
        let Some(capability) = capability else { return invalid("the volume's capability is missing") };
        let mount = match &capability.access_type {
            Some(AccessType::Mount(mount)) => mount,
            Some(AccessType::Block(_)) => {
                return invalid(
                    "a volume of Granary is a file system, no block device: leave out volumeMode: Block",
                );
            }
            None => return invalid("the volume's capability has no access type"),
        };
        if !["", "granary", "fuse.granary"].contains(&mount.fs_type.as_str()) {
            return invalid(format!(
                "fsType {:?} cannot be had; leave it out: a volume of Granary is its own kind",
                mount.fs_type
            ));
        }
        if let Some(flag) = mount.mount_flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
            return invalid(format!("mount option {flag:?} is not known; known are {}", FLAGS.join(", ")));
        }
        let mode = capability.access_mode.as_ref().map_or(Mode::Unknown, |access| access.mode());
        let read_only = match mode {
            Mode::Unknown => return invalid("the volume's capability has no access mode"),
            Mode::SingleNodeReaderOnly | Mode::MultiNodeReaderOnly => true,
            Mode::SingleNodeWriter
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter
            | Mode::MultiNodeSingleWriter
            | Mode::MultiNodeMultiWriter => false,
        };
        let read_only = read_only || mount.mount_flags.iter().any(|flag| flag == "ro");
        Ok(Access { read_only, mount_flags: mount.mount_flags.clone() })
    }

    /// The options of a mount, of which some may come from the volume.
    pub fn options(&self, read_only: bool, mode: Option<&str>) -> String {
        let flags = self.mount_flags.iter().map(String::as_str).filter(|flag| !["ro", "rw"].contains(flag));
        let read_only = (read_only || self.read_only).then_some("ro".to_owned());
        let mode = mode.map(|mode| format!("mode={mode}"));
        flags.map(str::to_owned).chain(read_only).chain(mode).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use granary_core::Kind;

    use super::*;
    use crate::proto::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn capability(mode: Mode, mount: MountVolume) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(AccessType::Mount(mount)),
        }
    }

    #[test]
    fn modes_that_mount() {
        for (mode, read_only) in [
            (Mode::MultiNodeMultiWriter, false),
            (Mode::SingleNodeSingleWriter, false),
            (Mode::MultiNodeReaderOnly, true),
        ] {
            let access = Access::parse(Some(&capability(mode, MountVolume::default()))).unwrap();
            assert_eq!(access.read_only, read_only, "{mode:?}");
        }
        let flags =
            MountVolume { mount_flags: vec!["noatime".into(), "ro".into()], ..MountVolume::default() };
        let access = Access::parse(Some(&capability(Mode::MultiNodeMultiWriter, flags))).unwrap();
        assert_eq!(access.options(false, Some("data")), "noatime,ro,mode=data");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let good = capability(Mode::MultiNodeMultiWriter, MountVolume::default());
        let block = VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), ..good.clone() };
        let typeless = VolumeCapability { access_type: None, ..good.clone() };
        let modeless = VolumeCapability { access_mode: None, ..good };
        let ext4 = capability(
            Mode::MultiNodeMultiWriter,
            MountVolume { fs_type: "ext4".into(), ..MountVolume::default() },
        );
        let odd = capability(
            Mode::MultiNodeMultiWriter,
            MountVolume { mount_flags: vec!["cache=/etc".into()], ..MountVolume::default() },
        );
        for (bad, says) in [
            (None, "missing"),
            (Some(&block), "block device"),
            (Some(&typeless), "access type"),
            (Some(&modeless), "access mode"),
            (Some(&ext4), "ext4"),
            (Some(&odd), "cache=/etc"),
        ] {
            let e = Access::parse(bad).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(says), "{e}");
        }
    }
}
