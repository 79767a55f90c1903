//! Parquet files: each value of a column of bytes or text is a file. Hugging Face's data sets of images and sounds are such files.
//!
//! A value has no place of its own in a Parquet file: columns are encoded, compressed and cut into pages. So the scan decodes the wanted
//! columns once, page by page, and keeps their values in unnamed files of the work directory (`spool`), which must have as much
//! room as they have bytes; packing reads them there, in whatever order shards want them. Names and places depend on the file alone,
//! so the same files give the same bytes.
//!
//! # Columns
//!
//! `--column NAME` is a column's path in the schema, its parts joined by dots. A group `{bytes, path}`, as Hugging Face writes images
//! and sounds, is named by itself: `image` means `image.bytes`, and the extension of `image.path`. Lists and numbers are not taken.
//!
//! # Names
//!
//! | asked for | name |
//! |---|---|
//! | one column | `<file>/<row, eight digits>.<extension>` |
//! | several | `<file>/<row, eight digits>.<column>.<extension>` |
//! | with `--name-column` | that column's value in the place of file and row; of one column as it is, when its base name has a dot |
//!
//! The file is named without `.parquet`, a column as in the schema, `_` for what is neither letter, digit nor `-`, and a group
//! by its own name. The extension is that of the group's `path`, else found by the value's first bytes, as for LMDB. A value or name
//! that is null is an error of its row.

mod columns;
mod file;
mod spool;
mod values;

use std::sync::Arc;

use granary_core::{Clock, Error, Kind, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use tokio::runtime::Handle;

use super::containers::{Container, Containers, Format};
use super::{Scan, Sink, Source, Want, kind, plain_entry};
use crate::pack::entry::{Content, Entry};
use crate::place;
use columns::Column;
use file::Chunks;
use spool::{Spool, Spools};
use values::Values;

/// Rows decoded at once.
const ROWS: usize = 256;

/// What is taken of each file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// At least one.
    pub columns: Vec<String>,
    pub name_column: Option<String>,
}

/// All Parquet files of a source.
#[derive(Debug)]
pub struct Parquet {
    files: Arc<Containers>,
    wanted: Wanted,
    spools: Spools,
}

impl Parquet {
    /// `text`: a Parquet file, or a folder or `s3://` prefix with some anywhere below.
    ///
    /// Errors: `Invalid` without a column; as [`Containers::open`].
    pub fn open(
        text: &str,
        wanted: Wanted,
        options: &place::Options,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Parquet> {
        if wanted.columns.is_empty() {
            return Err(Error::new(Kind::Invalid, "no column of the Parquet files is named; give --column"));
        }
        let files = Arc::new(Containers::open(text, Format::Parquet, options, clock, runtime)?);
        Ok(Parquet { files, wanted, spools: Spools::default() })
    }

    fn scan_one(&self, number: u32, spool: &mut Spool, sink: &mut Sink<'_>) -> Result<()> {
        let container = self.files.container(number);
        let chunks = Chunks::new(self.files.clone(), number);
        let reader = SerializedFileReader::new(chunks).map_err(error)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let columns = self.wanted.columns.iter().map(|name| columns::find(schema, name));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let names = self.wanted.name_column.as_ref().map(|name| columns::leaf(schema, name)).transpose()?;
        for column in &columns {
            let naming = Naming { container, column, several: columns.len() > 1 };
            let mut row = 0u64;
            for group in 0..reader.num_row_groups() {
                let group = reader.get_row_group(group).map_err(error)?;
                let open = |leaf: usize| Values::open(&*group, leaf);
                let mut values = open(column.value)?;
                let mut paths = column.path.map(open).transpose()?;
                let mut names = names.map(open).transpose()?;
                let mut left = group.metadata().num_rows().max(0) as u64;
                while left > 0 {
                    let rows = left.min(ROWS as u64) as usize;
                    let batch = Batch {
                        values: values.next(rows)?,
                        paths: paths.as_mut().map(|paths| paths.next(rows)).transpose()?,
                        names: names.as_mut().map(|names| names.next(rows)).transpose()?,
                    };
                    keep(&naming, &batch, row, number, spool, sink)?;
                    row += rows as u64;
                    left -= rows as u64;
                }
            }
        }
        Ok(())
    }
}

/// Some rows: their values, their paths in the group, and their names.
struct Batch {
    values: values::Rows,
    paths: Option<values::Rows>,
    names: Option<values::Rows>,
}

/// What names are made of besides a row.
struct Naming<'a> {
    container: &'a Container,
    column: &'a Column,
    several: bool,
}

/// Keeps the values of a batch, whose first row has this number in the file, and tells of them.
fn keep(
    naming: &Naming<'_>,
    batch: &Batch,
    first: u64,
    number: u32,
    spool: &mut Spool,
    sink: &mut Sink<'_>,
) -> Result<()> {
    for (at, value) in batch.values.iter().enumerate() {
        let row = first + at as u64;
        let null = |what: &str| {
            let e =
                Error::new(Kind::Invalid, format!("its {what} is null, so that there is nothing to pack"));
            (format!("{}, row {row}", naming.container.name), e)
        };
        let name = batch.names.as_ref().map(|names| names[at].as_ref());
        let (value, name) = match (value, name) {
            (None, _) => {
                let (row, e) = null(&format!("column {}", naming.column.name));
                sink.skip(&row, e)?;
                continue;
            }
            (_, Some(None)) => {
                let (row, e) = null("name");
                sink.skip(&row, e)?;
                continue;
            }
            (Some(value), name) => (value, name.flatten().map(|name| name.data())),
        };
        let path = batch.paths.as_ref().and_then(|paths| paths[at].as_ref()).map(|path| path.data());
        let name = naming.name(row, name, path, value.data());
        let content = Content::Range { container: number, offset: spool.keep(value.data())? };
        sink.push(&plain_entry(name, value.len() as u64, naming.container.mtime, content))?;
    }
    Ok(())
}

impl Naming<'_> {
    /// `name`: the name column's value; `path`: what the group says.
    fn name(&self, row: u64, name: Option<&[u8]>, path: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
        let of_value = || kind::of_head(&value[..value.len().min(kind::HEAD_BYTES)]).to_owned();
        let extension = path.and_then(columns::extension).unwrap_or_else(of_value);
        let (stem, dotted) = match name {
            Some(name) => {
                let base = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
                let dot = name[base..].iter().skip(1).position(|&b| b == b'.').map(|at| base + 1 + at);
                (name[..dot.unwrap_or(name.len())].to_vec(), dot.is_some())
            }
            None => {
                let file = &self.container.name;
                let file = file.strip_suffix(".parquet").unwrap_or(file);
                (format!("{file}/{row:08}").into_bytes(), false)
            }
        };
        match (name, self.several) {
            (Some(name), false) if dotted => name.to_vec(),
            (_, false) => [&stem[..], b".", extension.as_bytes()].concat(),
            (_, true) => [&stem[..], b".", self.column.label.as_bytes(), b".", extension.as_bytes()].concat(),
        }
    }
}

/// The crate's errors as ours: those that our own reading gave come back as they were.
fn error(e: ParquetError) -> Error {
    let e = match e {
        ParquetError::External(e) => match e.downcast::<Error>() {
            Ok(own) => return *own,
            Err(e) => match e.downcast::<std::io::Error>().map(|io| io.downcast::<Error>()) {
                Ok(Ok(own)) => return own,
                Ok(Err(io)) => ParquetError::External(io.into()),
                Err(e) => ParquetError::External(e),
            },
        },
        ParquetError::NYI(what) => {
            return Error::new(
                Kind::Unsupported,
                format!("it cannot be read: {what}; write it anew, compressed with zstd or snappy"),
            );
        }
        e => e,
    };
    Error::new(Kind::Corrupt, format!("it is damaged or no Parquet file: {e}; get a whole copy of it"))
}

impl Source for Parquet {
    fn scan(&self, scan: &Scan<'_>) -> Result<()> {
        self.spools.clear();
        self.files.each(scan, |number, sink| {
            let mut spool = self.spools.begin(number, &scan.work_dir)?;
            let scanned = self.scan_one(number, &mut spool, sink);
            self.spools.end(spool)?;
            self.files.ended(number, scanned, sink)
        })
    }

    fn read(&self, wants: &mut [Want<'_>]) {
        for want in wants {
            want.failed = match want.entry.content {
                Content::Range { container, offset } => {
                    self.spools.read(container, offset + want.from, want.into).err()
                }
                _ => Some(Error::new(Kind::Bug, "a value of a Parquet file is in no spool")),
            };
        }
    }

    fn check_steady(&self) -> Result<()> {
        self.files.check_steady()
    }

    fn retries(&self) -> u64 {
        self.files.retries()
    }

    fn remove(&self, entry: &Entry) -> Result<bool> {
        self.files.remove(entry)
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_as_the_table_says() {
        let container = Container::named("x/train-0.parquet");
        let column = Column { name: "image.bytes".into(), label: "image".into(), value: 0, path: Some(1) };
        let name = |several, name: Option<&str>, path: Option<&str>| {
            let naming = Naming { container: &container, column: &column, several };
            let made = naming.name(7, name.map(str::as_bytes), path.map(str::as_bytes), b"\xff\xd8\xff");
            String::from_utf8(made).unwrap()
        };
        assert_eq!(name(false, None, None), "x/train-0/00000007.jpg");
        assert_eq!(name(false, None, Some("a/b.JPEG")), "x/train-0/00000007.JPEG");
        assert_eq!(name(false, None, Some("a.b/c")), "x/train-0/00000007.jpg");
        assert_eq!(name(true, None, None), "x/train-0/00000007.image.jpg");
        assert_eq!(name(false, Some("cats/1"), None), "cats/1.jpg");
        assert_eq!(name(false, Some("cats/1.jpeg"), None), "cats/1.jpeg");
        assert_eq!(name(true, Some("cats/1.jpeg"), None), "cats/1.image.jpg");
        assert_eq!(name(false, Some(".hidden"), None), ".hidden.jpg");
    }

    #[test]
    fn errors_of_our_own_come_back_as_they_were() {
        let own = || Error::new(Kind::Unavailable, "the store is away");
        assert_eq!(error(ParquetError::External(Box::new(own()))).kind(), Kind::Unavailable);
        let io = std::io::Error::other(own());
        assert_eq!(error(ParquetError::External(Box::new(io))).kind(), Kind::Unavailable);
        assert_eq!(error(ParquetError::EOF("end".into())).kind(), Kind::Corrupt);
        assert_eq!(error(ParquetError::NYI("brotli".into())).kind(), Kind::Unsupported);
    }
}
