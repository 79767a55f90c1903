//! What a node of this process has in its stage log and not synced there, kept in the engine: so one sync, the engine's, makes it
//! and the metadata durable. After a power loss the node writes it back into its log.

use granary_core::{Error, Kind, NodeId, Result};

use super::{EngineView, LocalNamespace, Volume};
use crate::changes::Changes;
use crate::machine::View;
use crate::record::{Family, Key, Span, Value};
use crate::types::Redo;

impl LocalNamespace {
    pub(super) fn keep(&self, node: NodeId, keep: Vec<Redo>, drop: &[(u64, u64)]) -> Result<bool> {
        if self.shared.served.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(false);
        }
        let mut changes = Changes::default();
        for &(segment, offset) in drop {
            changes.set(Key::Redo(node, segment, offset), None);
        }
        for redo in keep {
            changes.set(Key::Redo(node, redo.segment, redo.offset), Some(Value::Redo(redo.bytes)));
        }
        let mut state = self.lock_with_room()?;
        if let Some(e) = &state.refused {
            return Err(e.duplicate());
        }
        self.absorb(&mut state, changes);
        std::mem::drop(state);
        self.shared.bell.dirty();
        Ok(true)
    }

    pub(super) fn kept(&self, node: NodeId) -> Result<Vec<Redo>> {
        self.read(|view| {
            let mut all = Vec::new();
            view.scan(Span::All(Family::Redo), Some(&Key::Redo(node, 0, 0)), &mut |key, value| match (
                key, value,
            ) {
                (Key::Redo(of, segment, offset), Value::Redo(bytes)) if of == node => {
                    all.push(Redo { segment, offset, bytes });
                    Ok(true)
                }
                _ => Ok(false),
            })?;
            Ok(all)
        })
    }
}

impl Volume {
    /// `Busy` when a node of an earlier process may need what only the engine has: it is given back to nobody from afar.
    pub(super) fn refuse_redo(&self) -> Result<()> {
        for (name, id) in self.names()? {
            let view = &mut EngineView { engine: &*self.shared.engine, ns: id };
            let mut found = None;
            view.scan(Span::All(Family::Redo), None, &mut |key, _| {
                if let Key::Redo(node, ..) = key {
                    found = Some(node);
                }
                Ok(false)
            })?;
            if let Some(node) = found {
                return Err(Error::new(
                    Kind::Busy,
                    format!(
                        "node {node} was stopped without an end while it had {name} mounted, and the metadata has bytes that its \
                         disk may lack; mount {name} there once more without --meta, unmount it, and serve the volume then"
                    ),
                ));
            }
        }
        Ok(())
    }
}
