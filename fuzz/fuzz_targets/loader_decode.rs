#![no_main]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use libfuzzer_sys::fuzz_target;

static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // Decoders' panics are caught where they are called, and are errors; with the fuzzer's own hook it would end at the first.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| granary_fuzz_parsers::loader_decode(data))) {
        // The hook said nothing of it.
        eprintln!("{:?}", why.downcast_ref::<String>());
        std::process::abort();
    }
});
