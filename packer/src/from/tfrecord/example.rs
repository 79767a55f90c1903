//! `tf.train.Example` in protobuf's wire format, as far as it goes:
//!
//! ```text
//! Example  { 1: Features }            Features { 1: map<string, Feature> }, an entry { 1: key, 2: Feature }
//! Feature  { 1: BytesList | 2: FloatList | 3: Int64List }     each list { 1: values, of numbers packed or not }
//! ```
//!
//! Unknown fields are passed over; what ends too early, nests wrongly or has no value is an error, never a panic.

use std::collections::BTreeMap;
use std::ops::Range;

/// One feature. Features come in the order of their names.
#[derive(Debug, PartialEq)]
pub struct Feature<'a> {
    pub name: &'a str,
    pub value: Value,
}

#[derive(Debug, PartialEq)]
pub enum Value {
    /// Where in the record each is.
    Bytes(Vec<Range<usize>>),
    /// As JSON has them.
    Numbers(Vec<String>),
}

/// Why a record is none.
pub type Why = &'static str;

const NONE: Why = "it is no tf.train.Example";

/// A field of a message: its number and its value.
#[derive(Debug)]
enum Field {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(Range<usize>),
}

/// Reads the fields of the message at `at` of `record`.
struct Fields<'a> {
    record: &'a [u8],
    at: Range<usize>,
}

impl Fields<'_> {
    fn varint(&mut self) -> Result<u64, Why> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            if self.at.is_empty() {
                return Err(NONE);
            }
            let byte = self.record[self.at.start];
            self.at.start += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(NONE)
    }

    fn bytes(&mut self, len: u64) -> Result<Range<usize>, Why> {
        if len > self.at.len() as u64 {
            return Err(NONE);
        }
        let range = self.at.start..self.at.start + len as usize;
        self.at.start = range.end;
        Ok(range)
    }

    fn next(&mut self) -> Result<Option<(u64, Field)>, Why> {
        if self.at.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.bytes(8)?;
                Field::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.bytes(len)?)
            }
            5 => {
                let range = self.bytes(4)?;
                Field::Fixed32(fixed32(&self.record[range]))
            }
            _ => return Err(NONE),
        };
        Ok(Some((tag >> 3, field)))
    }
}

fn fixed32(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// The features of a record. A name that comes twice has its last value, as in protobuf's maps.
///
/// Errors: why it is no `Example`.
pub fn parse(record: &[u8]) -> Result<Vec<Feature<'_>>, Why> {
    let mut found: BTreeMap<&str, Value> = BTreeMap::new();
    let mut example = Fields { record, at: 0..record.len() };
    while let Some(field) = example.next()? {
        let (1, Field::Bytes(features)) = field else { continue };
        let mut features = Fields { record, at: features };
        while let Some(field) = features.next()? {
            let (1, Field::Bytes(entry)) = field else { continue };
            let (mut name, mut value) = ("", None);
            let mut entry = Fields { record, at: entry };
            while let Some(field) = entry.next()? {
                match field {
                    (1, Field::Bytes(key)) => name = std::str::from_utf8(&record[key]).map_err(|_| NONE)?,
                    (2, Field::Bytes(feature)) => value = feature_of(record, feature)?,
                    _ => {}
                }
            }
            // A feature without a list is one without values; it makes no file.
            if let Some(value) = value {
                found.insert(name, value);
            }
        }
    }
    if found.is_empty() {
        return Err("it has no features");
    }
    Ok(found.into_iter().map(|(name, value)| Feature { name, value }).collect())
}

fn feature_of(record: &[u8], at: Range<usize>) -> Result<Option<Value>, Why> {
    let mut value = None;
    let mut feature = Fields { record, at };
    while let Some((kind, field)) = feature.next()? {
        let Field::Bytes(list) = field else { continue };
        let mut list = Fields { record, at: list };
        let (mut strings, mut numbers) = (Vec::new(), Vec::new());
        while let Some((number, field)) = list.next()? {
            match (kind, number, field) {
                (1, 1, Field::Bytes(string)) => strings.push(string),
                (2, 1, Field::Fixed32(bits)) => numbers.push(float(bits)),
                (2, 1, Field::Bytes(packed)) => {
                    if packed.len() % 4 != 0 {
                        return Err(NONE);
                    }
                    numbers.extend(record[packed].chunks_exact(4).map(|bytes| float(fixed32(bytes))));
                }
                (3, 1, Field::Number(bits)) => numbers.push((bits as i64).to_string()),
                (3, 1, Field::Bytes(packed)) => {
                    let mut packed = Fields { record, at: packed };
                    while !packed.at.is_empty() {
                        numbers.push((packed.varint()? as i64).to_string());
                    }
                }
                _ => {}
            }
        }
        match kind {
            1 => value = Some(Value::Bytes(strings)),
            2 | 3 => value = Some(Value::Numbers(numbers)),
            _ => {}
        }
    }
    Ok(value)
}

/// As Python's json writes and reads floats, the special ones too.
fn float(bits: u32) -> String {
    match f32::from_bits(bits) {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        value => format!("{value:?}"),
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A length-delimited field.
    pub fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
        out
    }

    fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    /// An example of features, each a list of kind 1, 2 or 3.
    pub fn example(features: &[(&str, u8, Vec<u8>)]) -> Vec<u8> {
        let entries: Vec<u8> = features
            .iter()
            .flat_map(|(name, kind, list)| {
                field(1, &[field(1, name.as_bytes()), field(2, &field(*kind, list))].concat())
            })
            .collect();
        field(1, &entries)
    }

    #[test]
    fn an_example_by_hand() {
        let mut ints = Vec::new();
        varint(7, &mut ints);
        varint((-3i64) as u64, &mut ints);
        let record = example(&[
            ("label", 3, field(1, &ints)),
            ("image/encoded", 1, field(1, b"\xff\xd8\xff")),
            ("w", 2, field(1, &[0.5f32.to_le_bytes(), 2f32.to_le_bytes()].concat())),
            ("one", 3, vec![8, 5]),
            ("none", 3, vec![]),
        ]);
        let got = parse(&record).unwrap();
        let names: Vec<_> = got.iter().map(|f| f.name).collect();
        assert_eq!(names, ["image/encoded", "label", "none", "one", "w"]);
        let Value::Bytes(image) = &got[0].value else { panic!("{got:?}") };
        assert_eq!(&record[image[0].clone()], b"\xff\xd8\xff");
        assert_eq!(got[1].value, Value::Numbers(vec!["7".into(), "-3".into()]));
        assert_eq!(got[2].value, Value::Numbers(vec![]));
        assert_eq!(got[3].value, Value::Numbers(vec!["5".into()]));
        assert_eq!(got[4].value, Value::Numbers(vec!["0.5".into(), "2.0".into()]));
        for cut in 1..record.len() {
            let _ = parse(&record[..cut]);
        }
        assert_eq!(parse(b"not protobuf").unwrap_err(), NONE);
        assert_eq!(parse(b"").unwrap_err(), "it has no features");
    }

    proptest! {
        #[test]
        fn hostile_records_are_refused_and_ranges_lie_within(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            for feature in parse(&record).unwrap_or_default() {
                if let Value::Bytes(strings) = feature.value {
                    prop_assert!(strings.iter().all(|range| range.end <= record.len()));
                }
            }
        }
    }
}
