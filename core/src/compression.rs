//! How objects are compressed: the names of it. The bytes are `granary-store`'s business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// How the frames of an object are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    #[default]
    None,
    Lz4,
    Zstd,
}

impl Codec {
    pub const ALL: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

    /// As it is written in objects' footers.
    pub fn tag(self) -> u8 {
        match self {
            Codec::None => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        }
    }

    pub fn of_tag(tag: u8) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.tag() == tag)
    }

    /// Among a namespace's settings, where 0 says nothing.
    pub fn number(self) -> u64 {
        u64::from(self.tag()) + 1
    }

    pub fn of_number(number: u64) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.number() == number)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.as_str() == s).ok_or_else(|| {
            Error::new(Kind::Invalid, format!("there is no compression {s:?}; write none, lz4 or zstd"))
        })
    }
}

/// The number among a namespace's settings, in JSON as its name.
pub(crate) mod by_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Codec;

    pub fn serialize<S: Serializer>(number: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        number.and_then(Codec::of_number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Codec>::deserialize(deserializer)?.map(Codec::number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tags_and_numbers_come_back() {
        for codec in Codec::ALL {
            assert_eq!(codec.as_str().parse::<Codec>().unwrap(), codec);
            assert_eq!(Codec::of_tag(codec.tag()), Some(codec));
            assert_eq!(Codec::of_number(codec.number()), Some(codec));
        }
        assert_eq!((Codec::of_tag(3), Codec::of_number(0), Codec::of_number(4)), (None, None, None));
        let e = "gzip".parse::<Codec>().unwrap_err();
        assert!(e.to_string().contains("none, lz4 or zstd"), "{e}");
    }
}
