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
    /// As after `mount -o`, without `ro` and `rw`.
    pub mount_flags: Vec<String>,
    /// The pod's `fsGroup`, which kubelet leaves to the driver.
    pub group: Option<u32>,
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
        let flags = mount.mount_flags.iter().filter(|flag| !["ro", "rw"].contains(&flag.as_str()));
        let group = match mount.volume_mount_group.as_str() {
            "" => None,
            text => match text.parse() {
                Ok(group) if group != u32::MAX => Some(group),
                _ => return invalid(format!("the volume's mount group {text:?} is no number of a group")),
            },
        };
        Ok(Access { read_only, mount_flags: flags.cloned().collect(), group })
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
            assert_eq!((access.read_only, access.group), (read_only, None), "{mode:?}");
        }
        let flags = MountVolume {
            mount_flags: vec!["noatime".into(), "ro".into()],
            volume_mount_group: "2000".into(),
            ..MountVolume::default()
        };
        let access = Access::parse(Some(&capability(Mode::MultiNodeMultiWriter, flags))).unwrap();
        let expected = Access { read_only: true, mount_flags: vec!["noatime".into()], group: Some(2000) };
        assert_eq!(access, expected);
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
        let crowd = capability(
            Mode::MultiNodeMultiWriter,
            MountVolume { volume_mount_group: "4294967295".into(), ..MountVolume::default() },
        );
        for (bad, says) in [
            (Some(&crowd), "mount group"),
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
