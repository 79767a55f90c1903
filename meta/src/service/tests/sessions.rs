use super::rig::*;
use crate::call::*;
use crate::lease::{LeaseKind, Scope};

#[test]
fn what_one_changes_another_sees_after_giving_its_lease_back() {
    let rig = Rig::new();
    let (mut a, mut b) = (rig.client(1), rig.client(2));
    let made = a.call(create("f", true));
    let Ok(Answer::Attr(attr)) = &made.result else { panic!("{made:?}") };
    let dir = [Scope::Directory(ROOT), Scope::Inode(ROOT)];
    assert!(made.grants.contains(&writes(Scope::Inode(attr.ino))), "{made:?}");
    assert!(dir.iter().all(|scope| made.grants.contains(&reads(*scope))), "{made:?}");
    assert_eq!(made.touched[0].ino, ROOT);
    assert!(made.usage.is_some());
    // B reads what A may have changed: A keeps reading.
    let id = b.submit(lookup("f"));
    assert!(b.is_quiet());
    let recall = a.recall();
    assert_eq!((recall.scope, recall.wanted), (Scope::Inode(attr.ino), LeaseKind::Read));
    // What is held back is committed before; no recall is needed for that.
    let committed = a.attr(commit(attr.ino, 10));
    a.connection.released(Released { id: recall.id, open: true });
    let seen = b.response(id);
    let Ok(Answer::Attr(seen_attr)) = &seen.result else { panic!("{seen:?}") };
    assert_eq!(seen_attr, &committed);
    assert_eq!(seen.grants, [reads(Scope::Directory(ROOT)), reads(Scope::Inode(attr.ino))]);
    // A changes it: B must give all of it up first.
    let id = a.submit(chmod(attr.ino, 0o600));
    assert!(a.is_quiet());
    let recall = b.recall();
    assert_eq!(recall.wanted, LeaseKind::Write);
    // Meanwhile others are answered, without a grant.
    let mut c = rig.client(3);
    let other = c.call(Call::GetAttr { ino: attr.ino });
    assert!(other.result.is_ok() && other.grants.is_empty(), "{other:?}");
    assert!(a.is_quiet());
    b.connection.released(Released { id: recall.id, open: false });
    let changed = a.response(id);
    assert!(changed.result.is_ok());
}
