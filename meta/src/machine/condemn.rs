//! Objects that are in the store and that nobody has named: what makes it safe to delete one.
//!
//! An object is stored before metadata names it, and a node may hang between the two for any time. So that nothing was
//! found to name an object proves nothing by itself. Condemning it does: from then on [`refuse`] keeps it from being named,
//! and what was to be in it stays where it was (the node stores it again, under another id). The record is never dropped,
//! because nothing bounds how late the node asks.

use granary_core::{Error, Kind, ObjectId, Result};

use super::view::Records;
use super::{Reply, Tx, View};
use crate::record::{Key, Value};

/// Known objects are left as they are: the live are in use, the dead are deleted in their own time.
pub(super) fn condemn(tx: &mut Tx<'_>, ids: &[ObjectId]) -> Result<Reply> {
    let mut condemned = Vec::with_capacity(ids.len());
    for &id in ids {
        let known = tx.find_object(id)?.is_some();
        condemned.push(!known);
        if !known && tx.get(&Key::Condemned(id))?.is_none() {
            let now = tx.now;
            tx.put(Key::Condemned(id), Value::Condemned(now));
        }
    }
    Ok(Reply::Condemned(condemned))
}

/// `Stale` for a condemned object: its bytes must be stored again.
pub(super) fn refuse(view: &mut dyn View, id: ObjectId) -> Result<()> {
    match view.get(&Key::Condemned(id))? {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Kind::Stale,
            format!(
                "object {id} was taken for garbage, because nobody named it for long; its bytes are stored again"
            ),
        )),
    }
}
