//! What other programs wrote and read (`loader/tests/media`), what is damaged, and what claims too much.

use std::path::PathBuf;

use granary_core::Kind;

use super::*;
use crate::order::permutation::key;

fn media(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/media").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn names(ending: &str) -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/media");
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

fn way(name: &str) -> Way {
    name.parse().unwrap()
}

fn file(way: &Way, bytes: &[u8]) -> Result<Array> {
    way.array(bytes)
}

fn file_bytes(way: &Way, bytes: &[u8]) -> u64 {
    way.bytes(bytes)
}

fn u8s(array: &Array) -> &[u8] {
    match &array.numbers {
        Numbers::U8(all) => all,
        other => panic!("{other:?}"),
    }
}

fn f32s(array: &Array) -> &[f32] {
    match &array.numbers {
        Numbers::F32(all) => all,
        other => panic!("{other:?}"),
    }
}

fn array_bytes(array: &Array) -> u64 {
    let number = match array.numbers {
        Numbers::U8(_) => 1,
        Numbers::U16(_) | Numbers::I16(_) => 2,
        Numbers::F32(_) => 4,
    };
    array.numbers.len() as u64 * number
}

/// A PNG of these bytes, as they lie in a file.
fn png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, all: &[u8]) -> Vec<u8> {
    png_with(width, height, color, depth, all, |_| {}, None)
}

fn png_with(
    width: u32,
    height: u32,
    color: png::ColorType,
    depth: png::BitDepth,
    all: &[u8],
    set: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
    exif: Option<&[u8]>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    set(&mut encoder);
    let mut writer = encoder.write_header().unwrap();
    if let Some(exif) = exif {
        writer.write_chunk(png::chunk::eXIf, exif).unwrap();
    }
    writer.write_image_data(all).unwrap();
    writer.finish().unwrap();
    out
}

#[test]
fn jpegs_are_as_libjpeg_decodes_them_within_some_levels() {
    for name in names(".jpg") {
        let expected = file(&way("unchanged"), &media(&name.replace(".jpg", ".png"))).unwrap();
        let found = file(&way("auto"), &media(&name)).unwrap();
        assert_eq!(found.shape, expected.shape, "{name}");
        let off = u8s(&found).iter().zip(u8s(&expected)).map(|(a, b)| u32::from(a.abs_diff(*b)));
        let (most, sum) = off.fold((0, 0), |(most, sum), off| (off.max(most), sum + off));
        let mean = f64::from(sum) / expected.numbers.len() as f64;
        println!("{name}: at most {most} of 255, {mean:.3} on average");
        assert!(most <= 6 && mean < 0.6, "{name}: {most} {mean}");
    }
}

#[test]
fn vorbis_is_as_libvorbis_decodes_it() {
    for name in names(".ogg") {
        let expected = file(&way("f32"), &media(&name.replace(".ogg", ".wav"))).unwrap();
        let found = file(&way("auto"), &media(&name)).unwrap();
        assert_eq!((&found.shape, found.sample_rate), (&expected.shape, expected.sample_rate), "{name}");
        let most =
            f32s(&found).iter().zip(f32s(&expected)).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
        println!("{name}: at most {most:e} of 1");
        assert!(most < 1e-4, "{name}: {most}");
        // A piece is the same piece of the whole.
        let piece =
            Audio { start: 1234, frames: Some(777), mono: true, channels_first: true, ..Audio::default() };
        let piece = file(&Way { image: None, audio: Some(piece) }, &media(&name)).unwrap();
        assert_eq!(piece.shape, [1, 777]);
        let channels = found.shape[1];
        for (at, number) in f32s(&piece).iter().enumerate() {
            let frame = &f32s(&found)[(1234 + at) * channels..][..channels];
            assert_eq!(*number, frame.iter().sum::<f32>() / channels as f32);
        }
    }
}

#[test]
fn flac_is_what_was_stored_bit_by_bit() {
    for name in names(".flac") {
        for depth in Depth::NAMES {
            let expected = file(&way(depth), &media(&name.replace(".flac", ".wav"))).unwrap();
            assert_eq!(file(&way(depth), &media(&name)).unwrap(), expected, "{name} {depth}");
        }
    }
}

#[test]
fn modes_decide_the_channels() {
    for (name, stored) in [("baseline.jpg", 3), ("gray.jpg", 1), ("cmyk.jpg", 3), ("progressive.jpg", 3)] {
        for (mode, channels) in [("unchanged", stored), ("gray8", 1), ("rgb8", 3), ("rgba8", 4)] {
            let found = file(&way(mode), &media(name)).unwrap();
            assert_eq!(found.shape, [37, 45, channels], "{name} {mode}");
            assert_eq!(found.numbers.len(), 37 * 45 * channels);
        }
    }
    let turned = media("turned.jpg");
    assert_eq!(file(&way("rgb8"), &turned).unwrap().shape, [45, 37, 3]);
    let as_stored = Way { image: Some(Image { orient: false, ..Image::default() }), audio: None };
    assert_eq!(file(&as_stored, &turned).unwrap().shape, [37, 45, 3]);
}

#[test]
fn images_of_any_size_come_in_one_shape() {
    let of = |text: &str| Decode::from_json(&format!(r#"{{"x": {{"image": {text}}}}}"#)).unwrap();
    for (settings, lying, standing) in [
        (r#"{"mode": "rgb8", "size": [24, 32]}"#, [24, 32, 3], [24, 32, 3]),
        (r#"{"mode": "rgb8", "shorter_side": 20}"#, [20, 24, 3], [24, 20, 3]),
        (r#"{"mode": "rgba8", "shorter_side": 100, "size": [96, 64]}"#, [96, 64, 4], [96, 64, 4]),
    ] {
        let decode = of(settings);
        let way = decode.way(b"x").unwrap();
        for name in ["baseline.jpg", "gray.jpg", "cmyk.jpg", "progressive.jpg", "turned.jpg", "baseline.png"]
        {
            let shape = if name == "turned.jpg" { standing } else { lying };
            let found = file(way, &media(name)).unwrap();
            assert_eq!((&found.shape[..], u8s(&found).len()), (&shape[..], shape.iter().product()), "{name}");
            assert_eq!(file_bytes(way, &media(name)), array_bytes(&found), "{name}");
        }
    }
    let deep =
        png(2, 2, png::ColorType::Grayscale, png::BitDepth::Sixteen, &[0x10, 0, 0x30, 0, 0x10, 0, 0x30, 0]);
    let found = file(of(r#"{"size": [1, 1]}"#).way(b"x").unwrap(), &deep).unwrap();
    assert_eq!((&found.shape[..], &found.numbers), (&[1, 1, 1][..], &Numbers::U16(vec![0x2000])));
}

#[test]
fn what_would_become_too_large_is_refused_before_memory_is_taken() {
    let thin = png(1, 4000, png::ColorType::Grayscale, png::BitDepth::Eight, &[7; 4000]);
    for image in [
        // 1000 x 4,000,000 pixels; and 1000 x 4000 between the one direction and the other.
        Image { shorter_side: Some(1000), ..Image::default() },
        Image { size: Some([10, 1000]), pixels_max: 100_000, ..Image::default() },
    ] {
        let way = Way { image: Some(image), audio: None };
        let e = file(&way, &thin).unwrap_err();
        assert_eq!((e.kind(), file_bytes(&way, &thin)), (Kind::FileTooLarge, 0), "{e}");
        assert!(e.to_string().contains("on its way to another size"), "{e}");
    }
    let way = Way { image: Some(Image { size: Some([10, 10]), ..Image::default() }), audio: None };
    assert_eq!(u8s(&file(&way, &thin).unwrap()), [7; 100]);
}

#[test]
fn pngs_of_all_kinds_are_exact() {
    use png::BitDepth::{Eight, Four, One, Sixteen, Two};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let unchanged = |bytes: &[u8]| file(&way("unchanged"), bytes).unwrap();
    let found = unchanged(&png(3, 2, Rgb, Eight, &(0..18).collect::<Vec<u8>>()));
    assert_eq!((&found.shape[..], u8s(&found)), (&[2, 3, 3][..], &(0..18).collect::<Vec<u8>>()[..]));
    // Fewer bits are spread over the range.
    assert_eq!(u8s(&unchanged(&png(3, 1, Grayscale, One, &[0b1010_0000]))), [255, 0, 255]);
    assert_eq!(u8s(&unchanged(&png(4, 1, Grayscale, Two, &[0b0001_1011]))), [0, 85, 170, 255]);
    assert_eq!(u8s(&unchanged(&png(2, 1, Grayscale, Four, &[0x3f]))), [51, 255]);
    let found = unchanged(&png(1, 2, GrayscaleAlpha, Eight, &[1, 2, 3, 4]));
    assert_eq!((&found.shape[..], u8s(&found)), (&[2, 1, 2][..], &[1, 2, 3, 4][..]));
    assert_eq!(u8s(&unchanged(&png(1, 1, Rgba, Eight, &[1, 2, 3, 4]))), [1, 2, 3, 4]);
    // 16 bits stay, unless 8 are asked for.
    let deep = png(2, 1, Grayscale, Sixteen, &[0x12, 0x34, 0xff, 0xfe]);
    let found = unchanged(&deep);
    assert_eq!((&found.shape[..], &found.numbers), (&[1, 2, 1][..], &Numbers::U16(vec![0x1234, 0xfffe])));
    assert_eq!(u8s(&file(&way("gray8"), &deep).unwrap()), [0x12, 0xff]);
    assert_eq!(u8s(&file(&way("rgb8"), &deep).unwrap()), [0x12, 0x12, 0x12, 0xff, 0xff, 0xff]);
    assert_eq!(file_bytes(&way("unchanged"), &deep), 8);
    // Palettes, without and with alpha.
    let palette = |alpha: bool| {
        let set = move |encoder: &mut png::Encoder<'_, &mut Vec<u8>>| {
            encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
            if alpha {
                encoder.set_trns(vec![128]);
            }
        };
        png_with(3, 1, Indexed, Eight, &[1, 0, 1], set, None)
    };
    assert_eq!(u8s(&unchanged(&palette(false))), [40, 50, 60, 10, 20, 30, 40, 50, 60]);
    assert_eq!(u8s(&unchanged(&palette(true))), [40, 50, 60, 255, 10, 20, 30, 128, 40, 50, 60, 255]);
    assert_eq!(u8s(&file(&way("rgb8"), &palette(true)).unwrap()), [40, 50, 60, 10, 20, 30, 40, 50, 60]);
    // Exif's orientation 6: what is stored at the left is above.
    let exif = [b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".as_slice()].concat();
    let turned = png_with(2, 1, Grayscale, Eight, &[7, 9], |_| {}, Some(&exif));
    let found = unchanged(&turned);
    assert_eq!((&found.shape[..], u8s(&found)), (&[2, 1, 1][..], &[7, 9][..]));
}

#[test]
fn what_claims_too_much_is_refused_before_memory_is_taken() {
    let mut bomb = png(1, 1, png::ColorType::Rgb, png::BitDepth::Eight, &[0; 3]);
    // Its header with another size and the right checksum.
    bomb[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let crc = png_crc(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let e = file(&way("auto"), &bomb).unwrap_err();
    assert_eq!((e.kind(), file_bytes(&way("auto"), &bomb)), (Kind::FileTooLarge, 0));
    assert!(e.to_string().contains("2147483647 x 2147483647 pixels, and pixels_max is 89478485"), "{e}");

    let mut wide = media("baseline.jpg");
    let frame = wide.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    wide[frame + 5..frame + 9].fill(0xff);
    let e = file(&way("auto"), &wide).unwrap_err();
    assert!(e.to_string().contains("65535 x 65535 pixels"), "{e}");
    assert_eq!(file_bytes(&way("auto"), &wide), 0);

    let few = |pixels_max| Way { image: Some(Image { pixels_max, ..Image::default() }), audio: None };
    assert!(file(&few(37 * 45), &media("fine.jpg")).is_ok());
    assert_eq!(file(&few(37 * 45 - 1), &media("fine.jpg")).unwrap_err().kind(), Kind::FileTooLarge);

    let short = |frames_max| Way { image: None, audio: Some(Audio { frames_max, ..Audio::default() }) };
    for name in ["stereo.ogg", "stereo.wav"] {
        assert_eq!(file(&short(4000), &media(name)).unwrap().shape, [4000, 2]);
        assert_eq!(file(&short(3999), &media(name)).unwrap_err().kind(), Kind::FileTooLarge);
        assert!(file_bytes(&short(3999), &media(name)) <= 3999 * 8);
    }
}

fn png_crc(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |mut crc, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
        crc
    });
    !crc
}

#[test]
fn what_it_is_its_bytes_say_and_the_error_names() {
    let sound = file(&way("rgb8"), &media("mono.ogg")).unwrap_err();
    assert!(sound.kind() == Kind::Invalid && sound.to_string().contains("sound in Ogg"), "{sound}");
    let image = file(&way("f32"), &media("fine.png")).unwrap_err();
    assert!(image.kind() == Kind::Invalid && image.to_string().contains("an image in Png"), "{image}");
    let other = file(&way("auto"), b"GIF89a\x01\x00\x01").unwrap_err();
    assert!(other.kind() == Kind::Unsupported && other.to_string().contains("GIF89a\\x01\\x00"), "{other}");
    assert!(file(&way("auto"), b"").is_err());
    let opus = audio::tests::ogg_page(b"OpusHead\x01\x02");
    let e = file(&way("auto"), &opus).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("Opus is not decoded"), "{e}");
}

#[test]
fn a_decoder_that_panics_is_an_error_of_its_file() {
    let e = guarded::<()>(Format::Flac, || panic!("made by a test")).unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("the decoder of Flac panicked"), "{e}");
}

/// Files of all formats, whole.
fn all_media() -> Vec<(String, Vec<u8>)> {
    let names = [".jpg", ".png", ".ogg", ".wav", ".flac"].into_iter().flat_map(names);
    names.map(|name| (name.clone(), media(&name))).collect()
}

#[test]
fn what_is_cut_is_never_given() {
    for (name, whole) in all_media() {
        let step = (whole.len() / 150).max(1);
        for length in (0..whole.len() - 1).step_by(step) {
            // Of PNG the end without content, IEND, may be missing.
            let most = if name.ends_with(".png") { whole.len() - 16 } else { whole.len() };
            if length < most {
                assert!(file(&way("auto"), &whole[..length]).is_err(), "{name}: {length} of {}", whole.len());
            }
        }
    }
}

#[test]
fn what_is_damaged_is_an_error_or_an_array_of_the_size_that_was_said() {
    let seed = 20_261_127;
    println!("seed {seed}");
    let mut refused = 0;
    for (name, whole) in all_media() {
        for round in 0..300 {
            let mut bytes = whole.clone();
            let draw = |what| key(&[seed, name.len() as u64, round, what]) as usize;
            for flip in 0..1 + draw(0) as u64 % 4 {
                // Half of them in the heads.
                let within = if draw(1 + flip) % 2 == 0 { bytes.len() } else { bytes.len().min(200) };
                let at = draw(10 + flip) % within;
                bytes[at] = draw(20 + flip) as u8;
            }
            // Another size is of an image that was decoded.
            let small = Image { size: Some([8, 9]), shorter_side: Some(20), ..Image::default() };
            let small = Way { image: Some(small), audio: None };
            if file_bytes(&small, &bytes) > 0
                && let Ok(array) = file(&small, &bytes)
            {
                assert!(
                    array.shape[..2] == [8, 9] && array_bytes(&array) <= file_bytes(&small, &bytes),
                    "{name} {round}"
                );
            }
            let most = file_bytes(&way("auto"), &bytes);
            match file(&way("auto"), &bytes) {
                Ok(array) => {
                    assert_eq!(array.shape.iter().product::<usize>(), array.numbers.len(), "{name} {round}");
                    assert!(array_bytes(&array) <= most, "{name} {round}: {} of {most}", array_bytes(&array));
                }
                Err(e) => {
                    let kinds = [Kind::Corrupt, Kind::Unsupported, Kind::FileTooLarge];
                    assert!(kinds.contains(&e.kind()), "{name} {round}: {e:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
