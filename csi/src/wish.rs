//! What a publishing asks for, and the mount that comes of it with what was granted.

use std::path::PathBuf;

use granary_core::{Error, Kind, Result};

use crate::access::Access;
use crate::grants::{Granted, Rights};
use crate::handle::Handle;
use crate::parameters::{Context, Ids, MountParameters};
use crate::volumes::{MountWanted, Mounted};

/// One publishing, before anybody said what of it may be.
#[derive(Clone, Debug)]
pub struct Wish {
    pub handle: Handle,
    pub dir: PathBuf,
    pub read_only: bool,
    pub access: Access,
    pub context: Context,
}

/// What is mounted, beside what would be by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same wish, with less granted: it can stay.
    Less,
    /// The same wish, with more.
    More,
    Other,
}

/// Refuses ids that nobody granted.
pub fn squashed(granted: Granted, ids: Ids) -> Result<Granted> {
    if !granted.squash && ids != Ids::default() {
        return Err(Error::new(
            Kind::Permission,
            "uid and gid make the pod the owner of the volume, which is not granted; leave them out, or have the administrator add \
             squash = true to the grant",
        ));
    }
    Ok(granted)
}

/// Options of a mount of this volume, in an order that is always the same: they are compared when it is asked for again.
pub fn options(access: &Access, mount: &MountParameters, ids: Ids, group: Option<u32>) -> String {
    let number = |key: &str, id: Option<u32>| id.map(|id| format!("{key}={id}"));
    let flags = access.mount_flags.iter().cloned();
    flags
        .chain(mount.mode.iter().map(|mode| format!("mode={mode}")))
        // So that each pod may see other ids, and a dead mount is mended where pods can see it.
        .chain(["idmap".to_owned(), "over_dead".to_owned()])
        .chain(number("map_uid", ids.uid))
        .chain(number("map_gid", ids.gid))
        .chain(number("map_group", group))
        .collect::<Vec<_>>()
        .join(",")
}

/// Something else is mounted there.
pub fn other(wanted: &MountWanted, there: &Mounted) -> Error {
    let how = |read_only| if read_only { "read-only" } else { "for writing" };
    let what = |tree: &Option<String>| tree.as_ref().map_or(String::new(), |tree| format!(", tree {tree}"));
    let (was, is) = (&there.options.as_deref().unwrap_or(""), &wanted.options);
    Error::new(
        Kind::Exists,
        format!(
            "{}{} is mounted {} with {was:?} at {} already, not {}{} {} with {is:?}",
            there.namespace,
            what(&there.tree),
            how(there.read_only),
            wanted.dir.display(),
            wanted.namespace,
            what(&wanted.tree),
            how(wanted.read_only),
        ),
    )
}

impl MountWanted {
    /// Whether that is what is mounted.
    pub fn is(&self, there: &Mounted) -> bool {
        let same = self.namespace == there.namespace && self.read_only == there.read_only;
        // Of a mount that a node process took over from an older one, these may not be known.
        same && there
            .options
            .as_ref()
            .is_none_or(|options| *options == self.options && there.tree == self.tree)
    }
}

impl Wish {
    /// The mount that it is with this much granted.
    pub fn mount(&self, granted: Granted) -> MountWanted {
        let Context { mount, ids, .. } = &self.context;
        // A group of its own is asked for the one volume; `fsGroup` for whatever the pod has.
        let group = self.access.group.filter(|_| granted.squash && ids.gid.is_none());
        MountWanted {
            namespace: self.handle.namespace.clone(),
            tree: self.handle.tree.clone(),
            dir: self.dir.clone(),
            read_only: self.read_only || granted.rights == Rights::Read,
            options: options(&self.access, mount, *ids, group),
        }
    }

    /// Which of its mounts is there, if any.
    pub fn compare(&self, granted: Granted, there: &Mounted) -> Compared {
        let possible = [Rights::Read, Rights::Write]
            .into_iter()
            .flat_map(|rights| [false, true].map(|squash| Granted { rights, squash }));
        let mut found: Vec<Granted> = possible.filter(|granted| self.mount(*granted).is(there)).collect();
        // Grants that come to the same mount: the one that fits best is meant.
        found.sort_by_key(|found| (!found.is_within(granted), std::cmp::Reverse(*found)));
        match found.first() {
            None => Compared::Other,
            Some(found) if found.is_within(granted) => Compared::Less,
            Some(_) => Compared::More,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::gate::EVERYTHING;

    fn wish(read_only: bool, group: Option<u32>) -> Wish {
        Wish {
            handle: "group/asr:a".parse().unwrap(),
            dir: "/t".into(),
            read_only,
            access: Access { read_only: false, mount_flags: vec!["noexec".into()], group },
            context: Context::parse(&HashMap::new()).unwrap(),
        }
    }

    fn there(wanted: &MountWanted) -> Mounted {
        Mounted {
            namespace: wanted.namespace.clone(),
            tree: wanted.tree.clone(),
            read_only: wanted.read_only,
            options: Some(wanted.options.clone()),
            trouble: None,
        }
    }

    const READ: Granted = Granted { rights: Rights::Read, squash: false };
    const WRITE: Granted = Granted { rights: Rights::Write, squash: false };

    #[test]
    fn a_mount_is_what_is_asked_for_and_granted() {
        let all = wish(false, Some(2000)).mount(EVERYTHING);
        assert_eq!(
            (all.read_only, all.tree.as_deref(), all.options.as_str()),
            (false, Some("a"), "noexec,idmap,over_dead,map_group=2000")
        );
        let less = wish(false, Some(2000)).mount(READ);
        assert_eq!((less.read_only, less.options.as_str()), (true, "noexec,idmap,over_dead"));
        let mut own = wish(false, Some(2000));
        own.context.ids = Ids { uid: Some(1), gid: Some(2) };
        assert_eq!(own.mount(EVERYTHING).options, "noexec,idmap,over_dead,map_uid=1,map_gid=2");
    }

    #[test]
    fn ids_have_to_be_granted() {
        let ids = Ids { uid: Some(1000), gid: None };
        assert_eq!(squashed(WRITE, ids).unwrap_err().kind(), Kind::Permission);
        assert!(squashed(EVERYTHING, ids).is_ok() && squashed(WRITE, Ids::default()).is_ok());
    }

    #[test]
    fn another_mount_is_told_from_the_same_with_other_rights() {
        let asked = wish(false, Some(2000));
        let [all, write, read] = [EVERYTHING, WRITE, READ].map(|granted| there(&asked.mount(granted)));
        assert!(asked.mount(WRITE).is(&write) && !asked.mount(WRITE).is(&read));
        for (granted, there, compared) in [
            (WRITE, &read, Compared::Less),
            (EVERYTHING, &write, Compared::Less),
            (READ, &write, Compared::More),
            (WRITE, &all, Compared::More),
            (READ, &all, Compared::More),
        ] {
            assert_eq!(asked.compare(granted, there), compared, "{granted:?} {there:?}");
        }
        for change in [
            |it: &mut Mounted| it.tree = Some("b".into()),
            |it: &mut Mounted| it.tree = None,
            |it: &mut Mounted| it.namespace = "group/nlp".parse().unwrap(),
            |it: &mut Mounted| it.options = Some("idmap".into()),
        ] {
            let mut another = write.clone();
            change(&mut another);
            assert_eq!(asked.compare(EVERYTHING, &another), Compared::Other, "{another:?}");
            assert!(!asked.mount(WRITE).is(&another));
            assert_eq!(other(&asked.mount(WRITE), &another).kind(), Kind::Exists);
        }
        // One that was taken over, of which less is known.
        let unknown = Mounted { options: None, tree: None, ..write };
        assert!(asked.mount(WRITE).is(&unknown));
    }
}
