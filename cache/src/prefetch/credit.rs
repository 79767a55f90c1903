//! How many bytes may be fetched on a guess. Decides only; does no I/O.
//!
//! A guess spends credit; bytes that were fetched ahead and then read earn several times as much, so that a good guess is followed
//! by ever more, and a bad one ends after what there was at first. Demand earns a little, so that it is tried again some time: of
//! what is fetched in the long run, at most one part in [`TRICKLE`] is wasted on guesses.

/// Each byte that was used earns so many.
const REWARD: u64 = 4;
/// One in so many bytes that had to be waited for is earned.
const TRICKLE: u64 = 16;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    bytes: u64,
    bytes_max: u64,
}

impl Credit {
    /// All of it at first.
    pub fn new(bytes_max: u64) -> Credit {
        Credit { bytes: bytes_max, bytes_max }
    }

    /// Takes `bytes`, if there are as many.
    pub fn spend(&mut self, bytes: u64) -> bool {
        let enough = bytes <= self.bytes;
        if enough {
            self.bytes -= bytes;
        }
        enough
    }

    /// What was taken was not needed.
    pub fn give_back(&mut self, bytes: u64) {
        self.bytes = (self.bytes + bytes).min(self.bytes_max);
    }

    /// So many bytes that were fetched ahead were read.
    pub fn on_used(&mut self, bytes: u64) {
        self.give_back(bytes.saturating_mul(REWARD).min(self.bytes_max));
    }

    /// So many bytes had to be waited for.
    pub fn on_missed(&mut self, bytes: u64) {
        self.give_back(bytes / TRICKLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_guesses_end_and_good_ones_go_on() {
        let mut credit = Credit::new(100);
        assert_eq!((0..50).filter(|_| credit.spend(10)).count(), 10);
        for _ in 0..1000 {
            credit.on_used(10);
            assert!(credit.spend(10), "each is used");
        }
        let mut credit = Credit::new(100);
        // A guess of 10 for each miss of 10.
        let guessed = (0..1000)
            .filter(|_| {
                credit.on_missed(10);
                credit.spend(10)
            })
            .count();
        assert!(guessed <= 10, "rounded down: {guessed}");
        let mut credit = Credit::new(1600);
        let guessed = (0..1000)
            .filter(|_| {
                credit.on_missed(160);
                credit.spend(160)
            })
            .count();
        assert!((60..=80).contains(&guessed), "{guessed}");
    }
}
