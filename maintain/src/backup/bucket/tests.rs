use granary_core::Ino;
use granary_store::{Fault, FaultStore, MemoryStore, Operation};

use super::*;
use crate::backup::format::Decoder;
use crate::rig::Rig;

async fn save(rig: &Rig, keep: usize) -> Result<Written> {
    let store: Arc<dyn Store> = rig.store.clone();
    write(&rig.volume, &store, &*rig.clock, keep, &rig.progress()).await
}

fn saved(store: &MemoryStore) -> Vec<String> {
    store.keys().into_iter().filter(|k| k.starts_with(PREFIX)).collect()
}

/// Records in the newest backup of that moment.
async fn count(rig: &Rig, at_unix_ms: u64) -> Result<u64> {
    let found = find(&*rig.store, at_unix_ms, |ms| ms.to_string()).await?;
    let mut decoder = Decoder::default();
    read(&*rig.store, &found, async |part| decoder.push(&part, &mut |_, _| Ok(()))).await?;
    Ok(decoder.finish()?.1.records)
}

#[tokio::test]
async fn backups_are_written_when_something_changed_and_the_oldest_go() {
    let rig = Rig::new();
    let mut counts = Vec::new();
    for n in 0..5 {
        rig.staged(Ino::ROOT, &format!("f{n}"), b"bytes");
        let Written::New(m) = save(&rig, 3).await.unwrap() else { panic!("not written") };
        counts.push((m.created_unix_ms, m.records));
        rig.later(100);
        assert_eq!(save(&rig, 3).await.unwrap(), Written::Unchanged(m));
        rig.later(100);
    }
    let left: Vec<u64> =
        list(&*rig.store).await.unwrap().iter().filter(|b| b.complete).map(|b| b.unix_ms).collect();
    assert_eq!(left, counts[2..].iter().map(|(ms, _)| *ms).collect::<Vec<_>>());
    assert_eq!(saved(&rig.store).len(), 6);
    for (ms, records) in &counts[2..] {
        assert_eq!(count(&rig, ms + 50).await.unwrap(), *records);
    }
    let e = count(&rig, counts[1].0).await.unwrap_err();
    assert!(
        e.kind() == Kind::NotFound
            && e.to_string().contains(&format!("the oldest of 3 is of {}", counts[2].0)),
        "{e}"
    );
}

#[tokio::test]
async fn a_backup_without_an_end_is_none_and_goes_with_the_next() {
    let rig = Rig::new();
    rig.filled();
    let store: Arc<dyn Store> = {
        let faulty = FaultStore::new(rig.store.clone(), 1);
        // The part is stored, its end is not.
        faulty.script(Operation::Put, Fault::None, 1);
        faulty.script(Operation::Put, Fault::Before(Kind::Unavailable), 1);
        Arc::new(faulty)
    };
    let e = write(&rig.volume, &store, &*rig.clock, 3, &rig.progress()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert_eq!(saved(&rig.store).len(), 1);
    let e = count(&rig, u64::MAX).await.unwrap_err();
    assert!(e.to_string().contains("there is none"), "{e}");
    // In the same millisecond: still a key of its own.
    let Written::New(m) = save(&rig, 3).await.unwrap() else { panic!("not written") };
    assert_eq!(count(&rig, u64::MAX).await.unwrap(), m.records);
    assert_eq!(saved(&rig.store).len(), 2, "{:?}", saved(&rig.store));
}

#[tokio::test]
async fn a_missing_or_damaged_part_is_told() {
    let rig = Rig::new();
    rig.filled();
    save(&rig, 3).await.unwrap();
    let part = saved(&rig.store)[0].clone();
    let good = rig.store.object(&part).unwrap();
    let mut bad = good.to_vec();
    bad[200] ^= 1;
    rig.store.tamper(&part, bad.into());
    assert_eq!(count(&rig, u64::MAX).await.unwrap_err().kind(), Kind::Corrupt);
    rig.store.delete(vec![part.clone()]).await.unwrap();
    let e = count(&rig, u64::MAX).await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains(&part), "{e}");
}
