//! How many batches to have ready or under way: a policy without I/O.
//!
//! By Little's law that is the rate of batches times how long one takes. Both are seen from one thing: whether the consumer waits. When it
//! does, the depth grows by half; when many batches in a row were ready, it shrinks by one, so that memory is not held for nothing.

/// Batches given without a wait before the depth shrinks by one.
const CALM_BATCHES: u32 = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    now: u64,
    min: u64,
    max: u64,
    calm: u32,
}

impl Depth {
    /// Bounds of at least 1.
    pub fn new(min: u64, max: u64) -> Depth {
        Depth { now: min.max(1), min: min.max(1), max: max.max(min).max(1), calm: 0 }
    }

    pub fn batches(&self) -> u64 {
        self.now
    }

    /// A batch was given; `waited`: it was not ready when it was asked for.
    pub fn given(&mut self, waited: bool) {
        if waited {
            self.calm = 0;
            self.now = (self.now + self.now.div_ceil(2)).min(self.max);
            return;
        }
        self.calm += 1;
        if self.calm == CALM_BATCHES {
            self.calm = 0;
            self.now = (self.now - 1).max(self.min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_waiting_and_shrinks_in_calm_within_its_bounds() {
        let mut depth = Depth::new(4, 20);
        let grown: Vec<u64> = (0..5)
            .map(|_| {
                depth.given(true);
                depth.batches()
            })
            .collect();
        assert_eq!(grown, [6, 9, 14, 20, 20]);
        (0..CALM_BATCHES - 1).for_each(|_| depth.given(false));
        assert_eq!(depth.batches(), 20);
        depth.given(false);
        assert_eq!(depth.batches(), 19);
        (0..CALM_BATCHES * 100).for_each(|_| depth.given(false));
        assert_eq!(depth.batches(), 4);
    }
}
