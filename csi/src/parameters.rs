//! What may be asked for in a StorageClass's `parameters`, a PV's or a pod's `volumeAttributes`.
//!
//! | key | where | meaning |
//! |---|---|---|
//! | `kind` | class | kind of the namespaces that are made: `bucket` (default), `dataset`, `group`, `user` |
//! | `mode` | class | permission bits of its top directory, octal; default 2777: pods run as anybody, and what is made there is of the top directory's group, which is what `fsGroup` maps |
//! | `uid`, `gid` | class | its owner |
//! | `durability` | class | `local` or `object`: where `fsync` makes bytes safe |
//! | `trash` | class | how long removed files stay, in milliseconds; 0: no trash |
//! | `mountMode` | class, volume | `auto` (default), `work`, `data` |
//! | `readOnly` | class, volume | `true`: nobody may write |
//! | `warmup` | class, volume | `true`: its files are brought to the node from then on; `wait`: the pod starts when they are there; `a,b/c`, `wait:a,b/c`: only these paths of it |
//! | `uid`, `gid` | volume | the pod's ids: what belongs to the owner (the group) of the namespace's top directory is shown as theirs, and what they make belongs to it. The grant must say `squash` |
//! | `namespace` | inline volume | `KIND/NAME` |
//! | `tree` | inline volume | only this tree of it |
//! | `claimNamespace` | PV, by CreateVolume | the Kubernetes namespace of the claim that it was made for: its pods may mount it |
//!
//! `warmup: wait` is answered with ABORTED and how far it is, and kubelet asks again; that is what the pod's events show until then.
//!
//! # Ids
//!
//! | what is asked for | what the pod sees and does |
//! |---|---|
//! | nothing | ids are those of the namespace, and count as they are |
//! | `uid: N` | the top directory's owner is N, both ways. In the mount there is no other way to be that owner, and files of the namespace's own user N are nobody's |
//! | `gid: N` | the same for its group |
//! | `fsGroup: N` | the top directory's group is shown as N, and N as that group: they change places, so that every group can still make files |
//!
//! It is the kernel's idmapped mount (Linux 6.12): one mount of the namespace, other ids at each pod, no file touched. On the side of the
//! namespace it is always the owner or group of the whole namespace's top directory, also where a tree of it is mounted: no pod chooses them; a pod chooses what they look like to it. `gid` goes
//! before `fsGroup`. Without `squash` in the grant `uid` and `gid` are refused, and `fsGroup` changes nothing.
//!
//! Keys that Kubernetes adds (`csi.storage.k8s.io/…`, `storage.kubernetes.io/…`) are passed over; any other is refused, so that a
//! misspelt wish is not silently left out.

mod warmup;

use std::collections::HashMap;

use granary_core::{NamespaceName, Result};

pub use self::warmup::Warm;

use crate::handle::{Handle, check_tree};
use crate::status::invalid;

/// Kubernetes says `true` here when the volume is a pod's own, without a PV.
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// What the mount options are kept in between CreateVolume and NodePublishVolume.
const MOUNT_MODE: &str = "mountMode";
const READ_ONLY: &str = "readOnly";
const WARMUP: &str = "warmup";
const CLAIM_NAMESPACE: &str = "claimNamespace";
/// The provisioner says it, with `--extra-create-metadata`; no class and no claim can.
const PVC_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";

/// Permission bits of a made volume's top directory.
const MODE_DEFAULT: u32 = 0o2777;

/// Of a StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    pub kind: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub durable_in_store: bool,
    pub trash_ms: Option<u64>,
    pub mount: MountParameters,
    /// The Kubernetes namespace of the claim.
    pub claimed_by: Option<String>,
}

/// Of a volume, wherever it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountParameters {
    /// `work`, `data`; `None`: the node chooses.
    pub mode: Option<String>,
    pub read_only: bool,
    pub warm: Option<Warm>,
}

/// Whom the owner and the group of a volume's top directory are shown as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

impl MountParameters {
    fn context(&self) -> HashMap<String, String> {
        let mode = self.mode.iter().map(|mode| (MOUNT_MODE.to_owned(), mode.clone()));
        let read_only = self.read_only.then(|| (READ_ONLY.to_owned(), "true".to_owned()));
        let warm = self.warm.iter().map(|warm| (WARMUP.to_owned(), warm.to_string()));
        mode.chain(read_only).chain(warm).collect()
    }

    fn take(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            MOUNT_MODE => {
                self.mode = match value {
                    "auto" => None,
                    "work" | "data" => Some(value.to_owned()),
                    _ => return bad(key, value, "auto, work or data"),
                }
            }
            READ_ONLY => self.read_only = boolean(key, value)?,
            WARMUP => self.warm = Warm::parse(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Class {
    /// Errors: `Invalid` names the parameter.
    pub fn parse(parameters: &HashMap<String, String>) -> Result<Class> {
        let mut class = Class {
            kind: "bucket".to_owned(),
            mode: MODE_DEFAULT,
            uid: 0,
            gid: 0,
            durable_in_store: false,
            trash_ms: None,
            mount: MountParameters::default(),
            claimed_by: parameters.get(PVC_NAMESPACE).cloned(),
        };
        for (key, value) in ours(parameters) {
            match key {
                "kind" if ["user", "group", "dataset", "bucket"].contains(&value) => {
                    class.kind = value.to_owned()
                }
                "kind" => return bad(key, value, "user, group, dataset or bucket"),
                "mode" => match u32::from_str_radix(value, 8) {
                    Ok(mode) if mode <= 0o7777 => class.mode = mode,
                    _ => return bad(key, value, "permission bits in octal, as 0770"),
                },
                "uid" => class.uid = number(key, value)?,
                "gid" => class.gid = number(key, value)?,
                "durability" => {
                    class.durable_in_store = match value {
                        "local" => false,
                        "object" => true,
                        _ => return bad(key, value, "local or object"),
                    }
                }
                "trash" => class.trash_ms = Some(number(key, value)?),
                _ if class.mount.take(key, value)? => {}
                _ => {
                    return unknown(
                        key,
                        "kind, mode, uid, gid, durability, trash, mountMode, readOnly, warmup",
                    );
                }
            }
        }
        Ok(class)
    }

    /// What CreateVolume hands to the node.
    pub fn context(&self) -> HashMap<String, String> {
        let claim = self.claimed_by.iter().map(|claim| (CLAIM_NAMESPACE.to_owned(), claim.clone()));
        self.mount.context().into_iter().chain(claim).collect()
    }
}

/// What NodePublishVolume finds in a volume's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub mount: MountParameters,
    pub ids: Ids,
    /// The Kubernetes namespace of the claim that it was made for, of a PV.
    pub claimed_by: Option<String>,
    /// Of a volume that is a pod's own: which namespace.
    pub inline: Option<Handle>,
}

impl Context {
    /// Errors: `Invalid` names the attribute.
    pub fn parse(context: &HashMap<String, String>) -> Result<Context> {
        let ephemeral = context.get(EPHEMERAL).is_some_and(|value| value == "true");
        let (mut mount, mut ids, mut claimed_by) = (MountParameters::default(), Ids::default(), None);
        let (mut namespace, mut tree) = (None, None);
        for (key, value) in ours(context) {
            match key {
                "namespace" if ephemeral => namespace = Some(value.parse::<NamespaceName>()?),
                "tree" if ephemeral => tree = Some(check_tree(value)?),
                CLAIM_NAMESPACE if !ephemeral => claimed_by = Some(value.to_owned()),
                "uid" => ids.uid = Some(id(key, value)?),
                "gid" => ids.gid = Some(id(key, value)?),
                _ if mount.take(key, value)? => {}
                _ if ephemeral => {
                    return unknown(key, "namespace, tree, mountMode, readOnly, warmup, uid, gid");
                }
                _ => return unknown(key, "mountMode, readOnly, warmup, uid, gid"),
            }
        }
        let inline = match (ephemeral, namespace) {
            (false, _) => None,
            (true, Some(namespace)) => Some(Handle { namespace, tree }),
            (true, None) => {
                return invalid(
                    "an inline volume has to say which namespace it is: volumeAttributes: {namespace: user/alice}",
                );
            }
        };
        Ok(Context { mount, ids, claimed_by, inline })
    }
}

/// Without what Kubernetes adds.
fn ours(all: &HashMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    let own =
        |key: &str| !key.starts_with("csi.storage.k8s.io/") && !key.starts_with("storage.kubernetes.io/");
    all.iter().map(|(key, value)| (key.as_str(), value.as_str())).filter(move |(key, _)| own(key))
}

fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => bad(key, value, "true or false"),
    }
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T> {
    value.parse().or_else(|_| bad(key, value, "a whole number"))
}

/// The last number is nobody's: the kernel says "none" with it.
fn id(key: &str, value: &str) -> Result<u32> {
    match number(key, value)? {
        u32::MAX => bad(key, value, "a number of a user or group"),
        id => Ok(id),
    }
}

fn bad<T>(key: &str, value: &str, allowed: &str) -> Result<T> {
    invalid(format!("parameter {key} is {value:?}; write {allowed}"))
}

fn unknown<T>(key: &str, known: &str) -> Result<T> {
    invalid(format!("parameter {key} is not known; known are {known}"))
}

#[cfg(test)]
mod tests {
    use granary_core::Kind;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_class_is_read() {
        let class = Class::parse(&map(&[
            ("kind", "group"),
            ("mode", "2770"),
            ("gid", "100"),
            ("durability", "object"),
            ("mountMode", "data"),
            ("readOnly", "true"),
            ("warmup", "wait:a,b/c"),
            ("csi.storage.k8s.io/pvc/name", "claim"),
            ("csi.storage.k8s.io/pvc/namespace", "team-a"),
        ]))
        .unwrap();
        assert_eq!(
            (class.kind.as_str(), class.mode, class.gid, class.durable_in_store),
            ("group", 0o2770, 100, true)
        );
        let handed = map(&[
            ("mountMode", "data"),
            ("readOnly", "true"),
            ("warmup", "wait:a,b/c"),
            ("claimNamespace", "team-a"),
        ]);
        assert_eq!(class.context(), handed);
        let read = Context::parse(&handed).unwrap();
        assert_eq!((read.mount, read.claimed_by.as_deref()), (class.mount, Some("team-a")));
        let plain = Class::parse(&HashMap::new()).unwrap();
        assert_eq!((plain.kind.as_str(), plain.mode, plain.context().len()), ("bucket", 0o2777, 0));
    }

    #[test]
    fn wishes_that_cannot_be_are_named() {
        for (key, value) in [
            ("kind", "home"),
            ("mode", "99"),
            ("mode", "17777"),
            ("uid", "-1"),
            ("durability", "disk"),
            ("mountMode", "fast"),
            ("readOnly", "yes"),
            ("namespace", "user/alice"),
            ("claimNamespace", "team-a"),
            ("warmup", "../x"),
        ] {
            let e = Class::parse(&map(&[(key, value)])).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(key), "{e}");
        }
    }

    #[test]
    fn only_an_inline_volume_names_its_namespace() {
        let inline = (EPHEMERAL, "true");
        let context = Context::parse(&map(&[inline, ("namespace", "user/alice"), ("tree", "a/b")])).unwrap();
        assert_eq!(context.inline.unwrap().to_string(), "user/alice:a/b");
        for bad in [
            &[inline][..],
            &[inline, ("namespace", "alice")],
            &[inline, ("namespace", "user/alice"), ("tree", "../x")],
            // Nobody says for themselves whose claim it was, nor is anybody user -1.
            &[inline, ("namespace", "bucket/csi-x"), ("claimNamespace", "mine")],
            &[inline, ("namespace", "user/alice"), ("uid", "4294967295")],
            // A PV's id says it: an attribute must not change that.
            &[("namespace", "user/bob")],
            &[("csi.storage.k8s.io/ephemeral", "false"), ("namespace", "user/bob")],
        ] {
            assert_eq!(Context::parse(&map(bad)).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        assert!(Context::parse(&map(&[("readOnly", "true")])).unwrap().mount.read_only);
        let ids = Context::parse(&map(&[("uid", "1000"), ("gid", "0")])).unwrap().ids;
        assert_eq!(ids, Ids { uid: Some(1000), gid: Some(0) });
    }
}
