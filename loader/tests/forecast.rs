//! What a training would ask of a store, beside what it asks.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use granary_loader::forecast::forecast;
use granary_loader::{CacheOptions, Method, Options, Shuffle, SourceOptions};
use granary_packer::place::Place;

use common::{fill, folder, here, memory, over, rest_here};

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_as_many_as_were_foreseen() {
    let store = memory();
    // 20 MiB: 20 shards of 256 samples of 4 KiB, of which 512 are two headers and a class.
    fill(&Place::of_store(store.clone()), &[256; 20], 2048).await;
    let source = over(store, SourceOptions::default()).await;
    for method in [Method::None, Method::Window, Method::Full] {
        let shuffle = Shuffle { method, run_bytes: 128 << 10, lanes: 8, mix_samples: 4, bucket_batches: 0 };
        let options = Options { batch_samples: 64, shuffle, memory_bytes_max: 4 << 20, ..Options::default() };
        let told = forecast(&source, &options, None).unwrap();
        assert_eq!((told.samples, told.shards, told.global_batches, told.mapped), (5120, 20, 80, false));
        let loader = here(vec![source.clone()], options);
        let mut asked = Default::default();
        for epoch in 0..4 {
            if epoch == 1 {
                // What the first epoch began of the second is counted in both.
                asked = loader.progress_stats();
            }
            assert_eq!(rest_here(&loader).await.len(), 80);
        }
        let now = loader.progress_stats();
        let each = |all: u64, before: u64| (all - before) as f64 / 3.0;
        let requests = each(now.requests, asked.requests) / told.requests as f64;
        let bytes = each(now.request_bytes, asked.request_bytes) / told.request_bytes as f64;
        assert!((0.7..1.4).contains(&requests) && (0.7..1.4).contains(&bytes), "{method:?} {told:?} {now:?}");
        assert!((told.method == "full") == (method == Method::Full), "{told:?}");
    }
}

#[test]
fn what_lies_on_the_disk_is_not_requested() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path(), &[30, 30], 100);
    let cache = CacheOptions { folder: dir.path().join("none"), bytes_max: 64 << 20 };
    let told = forecast(&source, &Options { batch_samples: 8, ..Options::default() }, Some(&cache)).unwrap();
    assert!(told.mapped && told.requests == 0 && told.ready == 1.0, "{told:?}");
    // A data set of one window's size is shuffled as a whole.
    assert_eq!((told.method, told.runs, told.lanes, told.global_batches), ("full", 60, 1, 8));
    assert!(forecast(&source, &Options { batch_samples: 0, ..Options::default() }, None).is_err());
}
