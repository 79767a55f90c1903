//! What we want of a row. Shown, never asserted.

use serde::Serialize;

use super::{Row, title};
use crate::system::GRANARY;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aim {
    /// Granary's rate over the base's in the same round.
    RatioMin(f64),
    /// Granary's rate over that of a peer in the same round.
    TimesMin(&'static str, f64),
    /// Granary's value.
    ValueMax(f64),
    ValueMin(f64),
    /// Granary's value below that of a peer.
    Below(&'static str),
    All(&'static [Aim]),
    /// For information.
    None,
}

impl Aim {
    /// What is wanted and whether it was reached, as far as the row's samples say.
    pub(super) fn text(self, row: &Row) -> String {
        let median = |summary: Option<crate::stats::Summary>| summary.map(|s| s.median);
        let (wanted, met) = match self {
            Aim::None => return "-".into(),
            Aim::All(aims) => {
                return aims.iter().map(|aim| aim.text(row)).collect::<Vec<_>>().join("; ");
            }
            Aim::RatioMin(r) => (format!("{r} or more"), median(row.ratio(GRANARY)).map(|v| v >= r)),
            Aim::TimesMin(peer, r) => (
                format!("{r} times {} or more", title(peer)),
                median(row.ratio_to(GRANARY, peer)).map(|v| v >= r),
            ),
            Aim::ValueMax(v) => (format!("{v} or less"), median(row.summary(GRANARY)).map(|m| m <= v)),
            Aim::ValueMin(v) => (format!("{v} or more"), median(row.summary(GRANARY)).map(|m| m >= v)),
            Aim::Below(peer) => {
                (format!("below {}", title(peer)), median(row.ratio_to(GRANARY, peer)).map(|v| v < 1.0))
            }
        };
        match met {
            Some(true) => format!("{wanted}: met"),
            Some(false) => format!("{wanted}: **missed**"),
            None => wanted,
        }
    }
}
