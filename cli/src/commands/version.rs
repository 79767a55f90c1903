//! `granary version`.

use crate::exit::Outcome;

pub fn run() -> Outcome<()> {
    super::print(concat!("granary ", env!("CARGO_PKG_VERSION"), "\n"))
}
