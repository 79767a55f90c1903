//! The one place that takes randomness from the system. Others are handed a generator.

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng};

use crate::exit::{Failure, Outcome};

/// A generator seeded by the system: for object ids, node ids and volume ids.
pub fn generator() -> Outcome<StdRng> {
    StdRng::try_from_rng(&mut SysRng)
        .map_err(|e| Failure::failed(format!("the system gives no random numbers: {e}")))
}

/// 128 random bits at each call.
pub fn bits(mut generator: StdRng) -> impl FnMut() -> u128 + Send + 'static {
    move || (u128::from(generator.next_u64()) << 64) | u128::from(generator.next_u64())
}
