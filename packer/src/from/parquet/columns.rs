//! Which columns of a schema are meant.

use granary_core::{Error, Kind, Result};
use parquet::basic::Type;
use parquet::schema::types::SchemaDescriptor;

/// Longest extension that is taken over from a path, in bytes.
const EXTENSION_BYTES_MAX: usize = 16;

/// A column whose values are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its path in the schema.
    pub name: String,
    /// What it is called in names of files.
    pub label: String,
    /// Numbers of leaves: its values, and the paths beside them.
    pub value: usize,
    pub path: Option<usize>,
}

/// The column of this name: a leaf, or a group `{bytes, path}`.
///
/// Errors: as [`leaf`].
pub fn find(schema: &SchemaDescriptor, name: &str) -> Result<Column> {
    let bytes = format!("{name}.bytes");
    let (group, value_name) = match number(schema, name) {
        Some(_) => (name.strip_suffix(".bytes"), name),
        None if number(schema, &bytes).is_some() => (Some(name), &*bytes),
        None => (None, name),
    };
    let value = leaf(schema, value_name)?;
    let path = group.and_then(|group| leaf(schema, &format!("{group}.path")).ok());
    Ok(Column { label: plain(group.unwrap_or(name)), name: value_name.to_owned(), value, path })
}

/// The number of the leaf of this name, whose values are bytes or text.
///
/// Errors: `NotFound` lists the columns that can be taken; `Unsupported` for numbers and lists.
pub fn leaf(schema: &SchemaDescriptor, name: &str) -> Result<usize> {
    let Some(number) = number(schema, name) else {
        let can = (0..schema.num_columns()).filter(|&n| why_not(schema, n).is_none());
        let can: Vec<String> = can.map(|n| path(schema, n)).collect();
        let can = if can.is_empty() { "none".to_owned() } else { can.join(", ") };
        return Err(Error::new(
            Kind::NotFound,
            format!("it has no column {name:?}; its columns of bytes and text are: {can}"),
        ));
    };
    match why_not(schema, number) {
        None => Ok(number),
        Some(why) => Err(Error::new(
            Kind::Unsupported,
            format!("its column {name:?} cannot be packed: it is {why}; name another --column"),
        )),
    }
}

fn path(schema: &SchemaDescriptor, number: usize) -> String {
    schema.column(number).path().string()
}

fn number(schema: &SchemaDescriptor, name: &str) -> Option<usize> {
    (0..schema.num_columns()).find(|&n| path(schema, n) == name)
}

fn why_not(schema: &SchemaDescriptor, number: usize) -> Option<&'static str> {
    let column = schema.column(number);
    match column.physical_type() {
        _ if column.max_rep_level() > 0 => Some("a list, whose values are of no row alone"),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => None,
        _ => Some("of numbers, not of bytes or text"),
    }
}

/// The extension of a path's base name.
pub fn extension(path: &[u8]) -> Option<String> {
    let base = path.rsplit(|&b| b == b'/').next()?;
    let dot = base.iter().rposition(|&b| b == b'.').filter(|&dot| dot > 0)?;
    let extension = &base[dot + 1..];
    let good = (1..=EXTENSION_BYTES_MAX).contains(&extension.len())
        && extension.iter().all(u8::is_ascii_alphanumeric);
    good.then(|| String::from_utf8_lossy(extension).into_owned())
}

/// A column's name as a part of a file's.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::schema::parser::parse_message_type;

    use super::*;

    fn schema() -> SchemaDescriptor {
        let text = "message schema {
            optional group image { optional binary bytes; optional binary path (STRING); }
            optional group odd { optional binary bytes; optional int32 path; }
            optional int64 label;
            required binary text (STRING);
            optional group tags (LIST) { repeated group list { optional binary element (STRING); } }
            required fixed_len_byte_array(16) id;
        }";
        SchemaDescriptor::new(Arc::new(parse_message_type(text).unwrap()))
    }

    #[test]
    fn columns_are_found_by_their_paths_and_groups_by_their_names() {
        let schema = schema();
        let image = Column { name: "image.bytes".into(), label: "image".into(), value: 0, path: Some(1) };
        assert_eq!(find(&schema, "image").unwrap(), image);
        assert_eq!(find(&schema, "image.bytes").unwrap(), image);
        assert_eq!(find(&schema, "odd").unwrap().path, None);
        let text = Column { name: "text".into(), label: "text".into(), value: 5, path: None };
        assert_eq!(find(&schema, "text").unwrap(), text);
        assert_eq!(find(&schema, "id").unwrap().value, 7);
        assert_eq!(find(&schema, "image.path").unwrap().label, "image_path");
    }

    #[test]
    fn what_cannot_be_taken_is_refused_with_what_can() {
        let schema = schema();
        let e = find(&schema, "picture").unwrap_err();
        let all = "are: image.bytes, image.path, odd.bytes, text, id";
        assert!(e.kind() == Kind::NotFound && e.to_string().ends_with(all), "{e}");
        for (name, why) in [("label", "of numbers"), ("tags.list.element", "a list")] {
            let e = find(&schema, name).unwrap_err();
            assert!(e.kind() == Kind::Unsupported && e.to_string().contains(why), "{e}");
        }
    }

    #[test]
    fn extensions_are_plain() {
        for (path, wanted) in [
            ("a/b.JPEG", Some("JPEG")),
            ("b.tar.gz", Some("gz")),
            ("a.b/c", None),
            (".hidden", None),
            ("x.", None),
            ("x.a b", None),
            ("x.aaaaaaaaaaaaaaaaa", None),
        ] {
            assert_eq!(extension(path.as_bytes()).as_deref(), wanted, "{path}");
        }
    }
}
