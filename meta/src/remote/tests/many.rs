//! Many nodes at once.

use granary_core::Ino;

use super::rig::*;
use crate::Metadata;
use crate::types::*;

#[test]
fn thirty_two_nodes_change_one_directory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let rig = Rig::start().await;
        let mut nodes = Vec::new();
        for _ in 0..32 {
            nodes.push(rig.space().await);
        }
        let work = nodes.iter().enumerate().map(|(n, (_, space))| async move {
            for i in 0..6 {
                let text = format!("{n}-{i}");
                let made = create(space, Ino::ROOT, &text).await.unwrap();
                assert_eq!(space.lookup(Ino::ROOT, name(&text)).await.unwrap().ino, made.ino);
                let set = SetAttr { mode: Some(0o600 + i), ..Default::default() };
                space.setattr(made.ino, set).await.unwrap();
                // The same file for all: the last one wins, nobody fails.
                let shared = format!("shared-{i}");
                let (from, to) = (name(&text), name(&shared));
                space.rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).await.unwrap();
                assert_eq!(space.getattr(made.ino).await.map_or(0o600 + i, |attr| attr.mode), 0o600 + i);
            }
        });
        soon(futures::future::join_all(work)).await;
        for (_, space) in &nodes {
            let mut all = list(space, Ino::ROOT).await;
            all.sort();
            assert_eq!(all, (0..6).map(|i| format!("shared-{i}")).collect::<Vec<_>>());
        }
        assert_eq!(rig.service().volume().check(&NAME.parse().unwrap()).unwrap(), vec![]);
        assert_eq!(rig.service().stats().fenced, 0);
        rig.end().await;
    });
}
