//! Images and sound.

use granary_loader::decode::{Audio, Image, Mode, Numbers, Way};

/// Pixels and frames, so that the fuzzer's own limit on memory finds what is beyond.
const NUMBERS_MAX: u64 = 1 << 20;

/// Images and sound as anybody may send them: refused, or an array that is not larger than its head said.
pub fn loader_decode(data: &[u8]) {
    let audio = Audio { frames_max: NUMBERS_MAX, ..Audio::default() };
    let image = Image { pixels_max: NUMBERS_MAX, ..Image::default() };
    let small = Image { mode: Mode::Rgb8, size: Some([24, 32]), shorter_side: Some(40), ..image.clone() };
    for image in [image, small] {
        check(&Way { image: Some(image), audio: Some(audio.clone()) }, data);
    }
}

fn check(way: &Way, data: &[u8]) {
    let most = way.bytes(data);
    let Ok(array) = way.array(data) else { return };
    let bytes = match &array.numbers {
        Numbers::U8(all) => all.len(),
        Numbers::U16(all) => 2 * all.len(),
        Numbers::I16(all) => 2 * all.len(),
        Numbers::F32(all) => 4 * all.len(),
    };
    assert!(
        bytes as u64 <= most && array.shape.iter().product::<usize>() == array.numbers.len(),
        "{bytes} bytes in the shape {:?} came, and {most} were said",
        array.shape
    );
}
