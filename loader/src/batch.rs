//! A rank's part of a global batch, and how it is made of samples some of which may be bad.

use granary_core::{BytePermit, Error, Kind, Result};

use crate::options::OnError;
use crate::sample::Sample;

/// What one step of one rank is given.
#[derive(Clone, Debug)]
pub struct Batch {
    pub epoch: u64,
    /// The number of the global batch in the epoch.
    pub number: u64,
    pub samples: Vec<Sample>,
    /// So many at the end of `samples` are of the epoch's beginning and were given before: they fill the last batch.
    pub padding: u32,
    /// Samples that could not be read and are not among `samples`.
    pub skipped: u32,
    /// Samples that stand in for others.
    pub substituted: u32,
}

/// What became of a batch: samples, and the messages of those that were bad.
#[derive(Debug)]
pub(crate) struct Made {
    pub batch: Batch,
    /// Of its samples' files.
    pub bytes: u64,
    pub errors: Vec<Error>,
    /// What its arrays are counted in, until it is given.
    pub _decoded: Option<BytePermit>,
}

/// A store that does not answer, or refuses us: all samples are concerned, and none is bad.
fn is_outage(e: &Error) -> bool {
    e.kind().is_transient() || e.kind() == Kind::Denied
}

impl Batch {
    /// `samples` in order, of which the last `padding` fill up.
    ///
    /// Errors: the first sample's, if `on_error` says so, or it is an outage.
    pub(crate) fn make(
        epoch: u64,
        number: u64,
        samples: Vec<Result<Sample>>,
        padding: u32,
        on_error: OnError,
    ) -> Result<Made> {
        let mut batch = Batch {
            epoch,
            number,
            samples: Vec::with_capacity(samples.len()),
            padding,
            skipped: 0,
            substituted: 0,
        };
        let mut errors = Vec::new();
        let first_padding = samples.len() - padding as usize;
        // Places of `batch.samples` before which a sample is missing.
        let mut missing = Vec::new();
        for (at, sample) in samples.into_iter().enumerate() {
            match sample {
                Ok(sample) => batch.samples.push(sample),
                Err(e) if on_error == OnError::Raise || is_outage(&e) => return Err(e),
                Err(e) => {
                    errors.push(e);
                    missing.push(batch.samples.len());
                    if on_error == OnError::Skip && at >= first_padding {
                        batch.padding -= 1;
                    }
                }
            }
        }
        if on_error == OnError::Substitute && !batch.samples.is_empty() {
            batch.substituted = missing.len() as u32;
            let last = batch.samples.len() - 1;
            for &at in missing.iter().rev() {
                let other = batch.samples[at.min(last)].clone();
                batch.samples.insert(at, other);
            }
        } else {
            batch.skipped = missing.len() as u32;
            batch.padding = batch.padding.min(batch.samples.len() as u32);
        }
        let bytes = batch.samples.iter().map(Sample::payload_bytes).sum::<Result<u64>>()?;
        Ok(Made { batch, bytes, errors, _decoded: None })
    }
}
