//! What the maintenance of a volume asks of its metadata, while others use it.

use granary_core::{NamespaceId, NamespaceName, ObjectId, Result};

use super::Volume;
use super::namespace::{LocalNamespace, unexpected};
use crate::engine::Look;
use crate::machine::check::Problem;
use crate::machine::{Operation, Records, Reply, repair};
use crate::record::{Key, ObjectRecord, volume as records};

/// All namespaces there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// In order of names.
    pub namespaces: Vec<(NamespaceName, NamespaceId)>,
    /// No namespace ever had this id or a larger one.
    pub next: NamespaceId,
}

impl Volume {
    pub fn inventory(&self) -> Result<Inventory> {
        // Ids first: one that is given meanwhile is then not taken for one that was given and removed.
        let next = match self.shared.engine.get(records::NEXT_ID_KEY)? {
            Some(bytes) => records::decode_id(&bytes)?,
            None => NamespaceId(1),
        };
        Ok(Inventory { namespaces: self.names()?, next })
    }

    /// Shows `look` the volume as it is at one moment, with all that was acknowledged before the call, while others go on.
    pub fn snapshot(&self, look: &mut Look<'_>) -> Result<()> {
        self.flush()?;
        self.shared.engine.snapshot(look)
    }
}

impl LocalNamespace {
    /// Condemns objects that are in the store and not known here; see `machine/condemn.rs`. Returns which of them nothing
    /// refers to, or ever will: once that is durable, they may be deleted.
    pub fn condemn(&self, ids: Vec<ObjectId>) -> Result<Vec<bool>> {
        match self.change(Operation::Condemn { ids })? {
            Reply::Condemned(condemned) => Ok(condemned),
            other => Err(unexpected(&other)),
        }
    }

    pub fn is_condemned(&self, id: ObjectId) -> Result<bool> {
        self.read(|view| Ok(view.get(&Key::Condemned(id))?.is_some()))
    }

    /// All that is known of an object.
    pub fn object_record(&self, id: ObjectId) -> Result<Option<ObjectRecord>> {
        self.read(|view| view.find_object(id))
    }

    /// Makes wrong counts right where that is proven, and returns what was wrong; see `machine/repair.rs`. Other calls wait.
    pub fn repair(&self) -> Result<Vec<Problem>> {
        let mut state = self.lock_with_room()?;
        if let Some(e) = &state.refused {
            return Err(e.duplicate());
        }
        let (changes, mended) = repair::repair(&mut self.layers(&mut state))?;
        self.absorb(&mut state, changes);
        drop(state);
        self.shared.bell.dirty();
        Ok(mended)
    }
}
