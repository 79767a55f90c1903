//! Images and sound as anybody may send them: refused, or an array that is not larger than its head said.
#![no_main]

use std::sync::Once;

use granary_loader::decode::{Audio, Image, Numbers, Way};
use libfuzzer_sys::fuzz_target;

/// Pixels and frames, so that the fuzzer's own limit on memory finds what is beyond.
const NUMBERS_MAX: u64 = 1 << 20;
static QUIET: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    // Decoders' panics are caught where they are called, and are errors; without this the fuzzer would end at the first.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let image = Image { pixels_max: NUMBERS_MAX, ..Image::default() };
    let audio = Audio { frames_max: NUMBERS_MAX, ..Audio::default() };
    let way = Way { image: Some(image), audio: Some(audio) };
    let most = way.bytes(data);
    let Ok(array) = way.array(data) else { return };
    let bytes = match &array.numbers {
        Numbers::U8(all) => all.len(),
        Numbers::U16(all) => 2 * all.len(),
        Numbers::I16(all) => 2 * all.len(),
        Numbers::F32(all) => 4 * all.len(),
    };
    // Not by a panic, which would be quiet.
    if bytes as u64 > most || array.shape.iter().product::<usize>() != array.numbers.len() {
        eprintln!("{bytes} bytes in the shape {:?} came, and {most} were said", array.shape);
        std::process::abort();
    }
});
