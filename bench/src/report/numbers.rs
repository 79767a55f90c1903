//! Numbers as people read them.

use crate::stats::Summary;

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => {
            let digits = format!("{v:.0}");
            let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            groups.join(",")
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Median, and what it lies between.
pub fn spread(s: Summary) -> String {
    let [median, min, max] = [s.median, s.min, s.max].map(number);
    if min == max { median } else { format!("{median} ({min}-{max})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(
            [0.123, 9.9, 99.94, 100.4, 999.0, 1234567.0].map(number),
            ["0.12", "9.90", "99.9", "100", "999", "1,234,567"]
        );
    }
}
