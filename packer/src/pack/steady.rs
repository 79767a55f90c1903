//! Whether a source still is what it was, for sources that cannot tell it while they are read: an object that was put anew meanwhile
//! has other bytes under the same key. Listing once more costs a thousandth of what reading cost.

use granary_core::Result;

use super::entry::{self, Order};
use super::plan::Plan;
use super::sort::Sorted;
use crate::from::changed;

/// Every planned entry is among what a second scan found, as it was. What came since is of no interest.
///
/// Errors: `Stale` names the first that is not; what the work directory's disk says.
pub fn check(plan: &Plan, order: Order, mut now: Sorted) -> Result<()> {
    let mut record = Vec::new();
    let mut at = now.next_record()?.map(<[u8]>::to_vec);
    for shard in &plan.shards {
        let mut entries = plan.entries_of(shard);
        while let Some(entry) = entries.next_entry()? {
            record.clear();
            order.encode(&entry, &mut record);
            let wanted = &record[4..];
            while at.as_ref().is_some_and(|at| entry::compare(at, wanted).is_lt()) {
                at = now.next_record()?.map(<[u8]>::to_vec);
            }
            if at.as_deref() != Some(wanted) {
                let how = match &at {
                    Some(at) if entry::compare(at, wanted).is_eq() => "it was put anew",
                    _ => "it is gone",
                };
                return Err(changed(how).context(String::from_utf8_lossy(&entry.path)));
            }
        }
    }
    Ok(())
}
