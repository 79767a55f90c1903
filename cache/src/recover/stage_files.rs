//! Stage files that an earlier run left: whose they are, and whether they are the content.

use std::collections::HashSet;
use std::sync::Arc;

use granary_core::{Failpoint, Ino, Result};

use super::replay::first_lost;
use super::{RecoveryStep, Telling, attr_of, unless_gone};
use crate::file::File;
use crate::stage::Shape;
use crate::tree::Shared;
use crate::util::blocking;

/// What is in the folders of stage files, of inodes that exist.
#[derive(Debug, Default)]
pub(super) struct Staged {
    whole: Vec<Ino>,
    sparse: Vec<Ino>,
    clean: Vec<(Ino, u64)>,
}

/// Removes stage files of inodes that are gone, and lets the files know of the others.
pub(super) async fn find_stage_files(shared: &Arc<Shared>) -> Result<Staged> {
    let mut listed = shared.files.list()?;
    // A whole one decides over a sparse or clean one of the same inode, which can only be older.
    listed.sort_by_key(|(_, shape)| *shape != Shape::Whole);
    let mut staged = Staged::default();
    let mut whole = HashSet::new();
    for (ino, shape) in listed {
        let attr = attr_of(shared, ino).await?;
        let Some(attr) = attr.filter(|_| !whole.contains(&ino)) else {
            shared.files.remove(ino, shape)?;
            continue;
        };
        let shape = if shape == Shape::Whole && attr.staged_seq != 0 && !shared.log.is_own(attr.staged_seq) {
            keep_overtaken(shared, ino).await?
        } else {
            shape
        };
        match shape {
            Shape::Whole => {
                whole.insert(ino);
                staged.whole.push(ino);
            }
            Shape::Sparse => staged.sparse.push(ino),
            Shape::Clean(version) => {
                staged.clean.push((ino, version));
                continue;
            }
        }
        let file = shared.table.acquire(ino, || File::new(ino, shared.clone()));
        file.adopt_stage(shape);
        shared.table.release(&file);
    }
    shared.files.sync_folders()?;
    Ok(staged)
}

/// Another node changed the file after this one did: its stage file is not the content any more, but extents may name ranges
/// of it. Returns its new shape.
async fn keep_overtaken(shared: &Arc<Shared>, ino: Ino) -> Result<Shape> {
    let task = shared.clone();
    let kept = blocking(&shared.runtime, move || {
        let aside = task.files.begin_aside(ino)?;
        aside.copy(&task.files.open_existing(ino, Shape::Whole)?)?;
        let path = aside.keep()?;
        task.files.reshape(ino, Shape::Whole, Shape::Sparse)?;
        Ok(path.display().to_string())
    })
    .await?;
    shared.note_overtaken(ino, &kept);
    Ok(Shape::Sparse)
}

pub(super) async fn take_stage_files(
    shared: &Arc<Shared>,
    staged: Staged,
    telling: &mut Telling<'_>,
) -> Result<()> {
    for ino in staged.whole {
        let taken = take_whole(shared, ino).await;
        unless_gone(shared, ino, taken)?;
        telling.add(RecoveryStep { files: 1, ..RecoveryStep::default() });
    }
    for ino in staged.sparse {
        let taken = take_sparse(shared, ino).await;
        unless_gone(shared, ino, taken)?;
    }
    for (ino, version) in staged.clean {
        match attr_of(shared, ino).await? {
            Some(attr) if attr.version == version => shared.clean.found(ino, version),
            _ => shared.files.remove(ino, Shape::Clean(version))?,
        }
    }
    let task = shared.clone();
    blocking(&shared.runtime, move || {
        task.files.sweep_sums()?;
        task.files.sync_folders()
    })
    .await
}

/// The stage file is the file's content.
async fn take_whole(shared: &Arc<Shared>, ino: Ino) -> Result<()> {
    let (Some(attr), Some(file)) = (attr_of(shared, ino).await?, shared.table.find(ino)) else {
        return Ok(());
    };
    file.load(&attr).await?;
    file.absorb(&mut file.state())?;
    file.commit().await?;
    Failpoint::RecoverAfterStageFile.reach();
    file.rest();
    Ok(())
}

/// The stage file has ranges that extents name, or is a leftover.
async fn take_sparse(shared: &Arc<Shared>, ino: Ino) -> Result<()> {
    let (Some(attr), Some(file)) = (attr_of(shared, ino).await?, shared.table.find(ino)) else {
        return Ok(());
    };
    file.load(&attr).await?;
    {
        let mut s = file.state();
        if s.map.staged() == 0 && !s.is_held() {
            s.stage = None;
            shared.files.remove(ino, Shape::Sparse)?;
        }
        file.settle(&mut s);
    }
    let lost = first_lost(shared.node, &file, &mut file.state())?;
    if let Some(at) = lost {
        file.cut_lost(at, "its stage file does not have them");
        file.commit().await?;
    }
    file.rest();
    shared.table.retire(&file);
    Ok(())
}

/// Files that programs have open since before this process, for as long as it takes to count them: until then nothing of theirs
/// is uploaded, dropped, or taken for settled. With whether the kernel may write each one's stage file.
pub(crate) async fn hold(
    shared: &Arc<Shared>,
    open: &[(Ino, Option<bool>)],
) -> Result<Vec<(Arc<File>, Option<bool>)>> {
    let mut held = Vec::new();
    for &(ino, passes) in open {
        let Some(attr) = attr_of(shared, ino).await? else { continue };
        let opened = shared.open(&attr, None).await;
        let Some(file) = unless_gone(shared, ino, opened)? else { continue };
        let passes = passes.filter(|write| match file.resume_passthrough(*write) {
            Ok(_) => true,
            Err(e) => {
                tracing::error!(ns = %shared.ns, %ino, error = %e, "stage file");
                false
            }
        });
        held.push((file, passes));
    }
    // A mapping outlives its file's close: nothing tells of it but the disk.
    for file in shared.table.all() {
        let mut s = file.state();
        if s.stage.as_ref().is_some_and(|stage| stage.shape == Shape::Whole) {
            file.loosen(&mut s);
        }
    }
    Ok(held)
}
