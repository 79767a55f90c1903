//! What a check tells: one finding for each thing that is wrong, with what it concerns and what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Findings that are told; further ones are counted.
pub const FINDINGS_MAX: usize = 1000;
/// Files that one finding names; further ones are counted.
pub const FILES_MAX: usize = 20;

/// Of them, those that its one line shows.
const FILES_SHOWN: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The metadata contradicts itself.
    Metadata,
    /// A wrong count was made right.
    Repaired,
    /// An object with bytes of files is not in the store.
    Lost,
    /// An object has another length than the metadata says.
    Length,
    /// An extent names bytes that the object does not have.
    Outside,
    /// An object's own directory does not have the bytes that the metadata says are there.
    Directory,
    /// An object's bytes do not match their checksums.
    Damaged,
    /// Nothing is wrong: objects in the store that the metadata does not know.
    Unnamed,
    /// Nothing is wrong: what lies there is not ours.
    Strange,
}

impl What {
    pub fn is_problem(self) -> bool {
        !matches!(self, What::Repaired | What::Unnamed | What::Strange)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    pub inode: u64,
    /// Below the namespace's root; `None` when no name leads to it.
    pub path: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub namespace: String,
    pub what: What,
    /// The object's key in the store.
    pub object: Option<String>,
    /// Files concerned, at most [`FILES_MAX`].
    pub files: Vec<FileRef>,
    pub files_total: u64,
    pub message: String,
    /// What to do.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.namespace, self.message)?;
        if let Some(object) = &self.object {
            write!(f, " [object {object}]")?;
        }
        let shown = &self.files[..self.files.len().min(FILES_SHOWN)];
        for (i, file) in shown.iter().enumerate() {
            f.write_str(if i == 0 { " [" } else { ", " })?;
            match &file.path {
                Some(path) => write!(f, "{path} (inode {:016x})", file.inode)?,
                None => write!(f, "inode {:016x}, without a name", file.inode)?,
            }
        }
        match self.files_total.saturating_sub(shown.len() as u64) {
            0 => {}
            more => write!(f, ", and {more} more")?,
        }
        if !self.files.is_empty() {
            f.write_str("]")?;
        }
        write!(f, "; {}", self.mend)
    }
}

/// Findings, as many as are told, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub told: Vec<Finding>,
    pub problems: u64,
    pub repaired: u64,
    /// Not told, because there are too many.
    pub left_out: u64,
}

impl Findings {
    pub fn add(&mut self, finding: Finding) {
        self.problems += u64::from(finding.what.is_problem());
        self.repaired += u64::from(finding.what == What::Repaired);
        if self.told.len() < FINDINGS_MAX {
            self.told.push(finding);
        } else {
            self.left_out += 1;
        }
    }
}
