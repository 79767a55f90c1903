use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn perm() -> impl Strategy<Value = u8> {
    0u8..=7
}

/// Valid lists; named users and groups in any order, as Linux takes them.
pub(crate) fn acl() -> impl Strategy<Value = Acl> {
    let named = || vec((0u32..5000, perm()), 0..4);
    ([perm(), perm(), perm()], named(), named(), prop::option::of(perm())).prop_map(
        |([owner, group, others], users, groups, mask)| {
            let must = !users.is_empty() || !groups.is_empty();
            let mask = if must { Some(mask.unwrap_or(7)) } else { mask };
            let mut entries = vec![Entry { who: Who::Owner, perm: owner }];
            entries.extend(users.into_iter().map(|(id, perm)| Entry { who: Who::User(id), perm }));
            entries.push(Entry { who: Who::OwningGroup, perm: group });
            entries.extend(groups.into_iter().map(|(id, perm)| Entry { who: Who::Group(id), perm }));
            entries.extend(mask.map(|perm| Entry { who: Who::Mask, perm }));
            entries.push(Entry { who: Who::Others, perm: others });
            Acl::new(entries).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(acl in acl()) {
        prop_assert_eq!(Acl::parse(&acl.encode()).unwrap(), Some(acl));
    }

    #[test]
    fn what_is_taken_is_valid(mut bytes in vec(any::<u8>(), 0..80), near in any::<bool>()) {
        if near && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[2, 0, 0, 0]);
        }
        if let Ok(Some(acl)) = Acl::parse(&bytes) {
            prop_assert_eq!(Acl::parse(&acl.encode()).unwrap(), Some(acl.clone()));
            prop_assert!(acl.mode() <= 0o777);
        }
    }

    #[test]
    fn one_wrong_entry_is_refused(acl in acl(), at in any::<prop::sample::Index>(), how in 0..4) {
        let mut entries = acl.entries().to_vec();
        let at = at.index(entries.len());
        match how {
            0 => drop(entries.remove(at)),
            1 => entries.insert(at, entries[at]),
            2 => entries.reverse(),
            _ => entries[at].who = Who::User(NO_ID),
        }
        let named = |entries: &[Entry]| entries.iter().any(|e| matches!(e.who, Who::User(_) | Who::Group(_)));
        let removed = acl.entries()[at].who;
        let harmless = match how {
            0 => matches!(removed, Who::User(_) | Who::Group(_)) || (removed == Who::Mask && !named(&entries)),
            1 => matches!(removed, Who::User(_) | Who::Group(_)),
            _ => false,
        };
        prop_assert_eq!(Acl::new(entries).is_ok(), harmless);
    }

    #[test]
    fn the_mode_is_what_chmod_set(mut acl in acl(), mode in 0u32..=0o777) {
        acl.set_mode(mode);
        prop_assert_eq!(acl.mode(), mode);
        prop_assert!(Acl::new(acl.entries().to_vec()).is_ok());
    }

    #[test]
    fn what_is_inherited_allows_no_more_than_either(acl in acl(), mode in 0u32..=0o777) {
        let made = acl.inherited(mode);
        prop_assert_eq!(made.mode(), acl.mode() & mode);
        prop_assert_eq!(made.is_mode(), acl.is_mode());
        for (a, b) in made.entries().iter().zip(acl.entries()) {
            prop_assert_eq!(a.who, b.who);
            prop_assert_eq!(a.perm & !b.perm, 0);
        }
    }
}

#[test]
fn the_bytes_are_linuxs() {
    // `setfacl -m u:1000:r-- FILE` on a file of mode 0644, as getfattr shows it on ext4.
    let hex = "0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff";
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
    let acl = Acl::parse(&bytes).unwrap().unwrap();
    assert_eq!(acl.mode(), 0o644);
    assert!(!acl.is_mode());
    assert_eq!(acl.entries()[1], Entry { who: Who::User(1000), perm: 4 });
    assert_eq!(acl.encode(), bytes);
}

#[test]
fn what_is_no_list_is_refused() {
    assert_eq!(Acl::parse(&[2, 0, 0, 0]).unwrap(), None);
    for (bytes, kind) in [
        (&[][..], Kind::Invalid),
        (&[2, 0], Kind::Invalid),
        (&[1, 0, 0, 0], Kind::Unsupported),
        (&[2, 0, 0, 0, 1], Kind::Invalid),
        (&[2, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], Kind::Invalid),
        (&[2, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0, 0], Kind::Invalid),
    ] {
        assert_eq!(Acl::parse(bytes).unwrap_err().kind(), kind, "{bytes:?}");
    }
    let ids: Vec<u32> = (0..ENTRIES_MAX as u32).collect();
    let mut entries = vec![Entry { who: Who::Owner, perm: 0 }];
    entries.extend(ids.iter().map(|&id| Entry { who: Who::User(id), perm: 1 }));
    entries.extend([Who::OwningGroup, Who::Mask, Who::Others].map(|who| Entry { who, perm: 0 }));
    assert_eq!(Acl::parse(&Acl::new(entries).unwrap().encode()).unwrap_err().kind(), Kind::Invalid);
}
