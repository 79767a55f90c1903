//! Which files are decoded, and to what: settings, as plain values.

use std::collections::BTreeMap;
use std::str::FromStr;

use granary_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use super::audio::{Audio, Depth};
use super::image::{Image, Mode};

/// How a file is decoded; by what it is, where both are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    pub image: Option<Image>,
    pub audio: Option<Audio>,
}

/// As it is written down.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Given {
    Name(String),
    Image(Image),
    Audio(Audio),
}

/// Extensions, and how files of them are decoded; of no other file. In JSON an object: `{"jpg": {"name": "rgb8"}, "wav": {"audio": {"mono": true}}}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decode {
    /// Small letters.
    ways: BTreeMap<String, Way>,
}

impl FromStr for Way {
    type Err = Error;

    /// `auto`, or the name of an image's mode or of a sound's depth.
    fn from_str(name: &str) -> Result<Way> {
        let image = name.parse().ok().map(|mode: Mode| Image { mode, ..Image::default() });
        let audio = name.parse().ok().map(|depth: Depth| Audio { depth, ..Audio::default() });
        match (name, image, audio) {
            ("auto", ..) => Ok(Way { image: Some(Image::default()), audio: Some(Audio::default()) }),
            (_, None, None) => Err(Error::new(
                Kind::Invalid,
                format!(
                    "{name:?} is nothing to decode to; it is one of auto, {}, {}",
                    Mode::NAMES.join(", "),
                    Depth::NAMES.join(", ")
                ),
            )),
            (_, image, audio) => Ok(Way { image, audio }),
        }
    }
}

impl Decode {
    /// Extensions that [`Decode::auto`] knows.
    pub const EXTENSIONS: [&str; 8] = ["flac", "jpeg", "jpg", "oga", "ogg", "png", "wav", "wave"];

    /// All files whose extension is an image's or a sound's, as they are stored.
    pub fn auto() -> Decode {
        let way = Way { image: Some(Image::default()), audio: Some(Audio::default()) };
        Decode {
            ways: Decode::EXTENSIONS.iter().map(|&extension| (extension.to_owned(), way.clone())).collect(),
        }
    }

    /// Errors: `Invalid` for limits that cannot be, and without an extension.
    pub fn new(ways: impl IntoIterator<Item = (String, Way)>) -> Result<Decode> {
        let mut kept = BTreeMap::new();
        for (extension, way) in ways {
            way.image.as_ref().map_or(Ok(()), Image::check)?;
            way.audio.as_ref().map_or(Ok(()), Audio::check)?;
            let extension = extension.trim_start_matches('.').to_lowercase();
            if extension.is_empty() {
                return Err(Error::new(
                    Kind::Invalid,
                    "decode names an empty extension; give one as \"jpg\"",
                ));
            }
            kept.insert(extension, way);
        }
        Ok(Decode { ways: kept })
    }

    /// Errors: `Invalid` names what is wrong in it.
    pub fn from_json(text: &str) -> Result<Decode> {
        let given: BTreeMap<String, Given> = serde_json::from_str(text)
            .map_err(|e| Error::new(Kind::Invalid, format!("decode cannot be understood: {e}")))?;
        let mut ways = Vec::with_capacity(given.len());
        for (extension, given) in given {
            let way = match given {
                Given::Name(name) => name.parse()?,
                Given::Image(image) => Way { image: Some(image), audio: None },
                Given::Audio(audio) => Way { image: None, audio: Some(audio) },
            };
            ways.push((extension, way));
        }
        Decode::new(ways)
    }

    /// How a file of this extension is decoded: `seg.png` as that says, or else as `png` does.
    pub fn way(&self, extension: &[u8]) -> Option<&Way> {
        let extension = std::str::from_utf8(extension).ok()?.to_lowercase();
        let mut rest = &extension[..];
        loop {
            if let Some(way) = self.ways.get(rest) {
                return Some(way);
            }
            rest = rest.split_once('.')?.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Decode {
        Decode::from_json(text).unwrap()
    }

    #[test]
    fn the_longest_extension_that_is_named_decides() {
        let decode =
            of(r#"{"png": {"name": "rgb8"}, "seg.png": {"name": "gray8"}, ".JPG": {"name": "auto"}}"#);
        let mode = |extension: &str| Some(decode.way(extension.as_bytes())?.image.as_ref()?.mode);
        assert_eq!(mode("png"), Some(Mode::Rgb8));
        assert_eq!(mode("left.png"), Some(Mode::Rgb8));
        assert_eq!(mode("seg.png"), Some(Mode::Gray8));
        assert_eq!(mode("b.SEG.png"), Some(Mode::Gray8));
        assert_eq!(mode("Jpg"), Some(Mode::Unchanged));
        assert_eq!((mode("xpng"), mode("png.gz"), mode(""), mode("cls")), (None, None, None, None));
        assert_eq!(decode.way(b"\xff"), None);
    }

    #[test]
    fn what_is_no_way_is_named() {
        for (text, said) in [
            (r#"{"jpg": {"name": "rgb9"}}"#, "one of auto, unchanged, gray8, rgb8, rgba8, f32, i16"),
            (r#"{"jpg": {"image": {"modus": "rgb8"}}}"#, "unknown field `modus`"),
            (r#"{"jpg": {"image": {"pixels_max": 0}}}"#, "pixels_max is 0"),
            (r#"{"jpg": {"image": {"size": [224, 0]}}}"#, "a side of 0 pixels"),
            (r#"{"jpg": {"image": {"filter": "box"}}}"#, "unknown variant `box`"),
            (r#"{"wav": {"audio": {"frames_max": 0}}}"#, "frames_max is 0"),
            (r#"{".": {"name": "auto"}}"#, "empty extension"),
            ("[]", "cannot be understood"),
        ] {
            let e = Decode::from_json(text).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains(said), "{text}: {e}");
        }
    }

    #[test]
    fn sound_and_images_are_told_apart_by_name() {
        let decode = of(r#"{"a": {"name": "i16"}, "b": {"audio": {"mono": true}}, "c": {"name": "auto"}}"#);
        let way = |extension: &str| decode.way(extension.as_bytes()).unwrap();
        assert!(way("a").image.is_none() && way("a").audio.as_ref().unwrap().depth == Depth::I16);
        assert!(
            way("b").audio.as_ref().unwrap().mono && way("b").audio.as_ref().unwrap().depth == Depth::F32
        );
        assert!(way("c").image.is_some() && way("c").audio.is_some());
        assert_eq!(Decode::auto().way(b"x.jpeg"), decode.way(b"c"));
    }
}
