//! Why something could not be uploaded.

use granary_core::Error;

#[derive(Debug)]
pub(super) enum Failure {
    /// The node's disk does not give it back. Nothing else suffers from that, and trying again at once does not help.
    Disk(Error),
    /// The store or the metadata refused it, or what is needed to ask them: everything else would fail too.
    Other(Error),
}

impl Failure {
    pub fn disk(&self) -> Option<&Error> {
        match self {
            Failure::Disk(e) => Some(e),
            Failure::Other(_) => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Other(e)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Disk(e) | Failure::Other(e) => e,
        }
    }
}
