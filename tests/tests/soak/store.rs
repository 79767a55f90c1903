//! What lies in the store in the end.

use std::time::Duration;

use granary_store::{Options, open};
use granary_tests::until_within;

/// Dead objects go a minute after their last byte, where no node runs that is told otherwise.
const PATIENCE: Duration = Duration::from_secs(100);

/// The keys of all objects with files' bytes, asked from the store itself.
fn left_in(url: &str) -> Vec<String> {
    let store = open(url, &Options::from_env()).expect("the store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listed = runtime.block_on(store.list("ns/", None, 1000)).expect("LIST");
    listed.into_iter().map(|object| object.key).collect()
}

/// Collects garbage until nothing is left.
pub fn is_empty_after(url: &str, collect: impl Fn() -> String) {
    let mut before = Vec::new();
    until_within(&format!("nothing is left in {url}"), PATIENCE, || {
        let told = collect();
        let left = left_in(url);
        if left != before {
            println!(
                "{} objects are left in {url}: {:?}\n{told}",
                left.len(),
                left.iter().take(3).collect::<Vec<_>>()
            );
            before = left;
        }
        before.is_empty()
    });
}
