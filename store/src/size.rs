//! Requests of like size are compared with each other: classes whose bounds are powers of four.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Up to 4 KiB, 16 KiB, 64 KiB, 256 KiB, 1 MiB, 4 MiB, 16 MiB, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    pub const COUNT: usize = 8;
    const LABELS: [&str; SizeClass::COUNT] = ["4k", "16k", "64k", "256k", "1m", "4m", "16m", "more"];

    pub fn of(bytes: u64) -> SizeClass {
        let bits = 64 - bytes.saturating_sub(1).leading_zeros(); // ceiling of the binary logarithm
        SizeClass((bits.saturating_sub(11) / 2).min(SizeClass::COUNT as u32 - 1) as u8)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl EncodeLabelValue for SizeClass {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&SizeClass::LABELS[self.index()], encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_four() {
        for (index, last) in (12..=24).step_by(2).map(|bits| 1u64 << bits).enumerate() {
            assert_eq!(SizeClass::of(last).index(), index, "{last}");
            assert_eq!(SizeClass::of(last + 1).index(), index + 1, "{last} + 1");
        }
        assert_eq!((SizeClass::of(0).index(), SizeClass::of(u64::MAX).index()), (0, 7));
    }
}
