//! One column of one group of rows, some rows at a time.

use granary_core::{Error, Kind, Result};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArrayType};
use parquet::file::reader::RowGroupReader;

use super::error;

/// A value for each row; `None`: null.
pub type Rows = Vec<Option<ByteArray>>;

/// Reads a column.
pub struct Values {
    reader: Reader,
    /// The level at which a value is one; 0: none is null.
    level: i16,
}

enum Reader {
    Bytes(ColumnReaderImpl<ByteArrayType>),
    Fixed(ColumnReaderImpl<FixedLenByteArrayType>),
}

impl Values {
    /// `leaf`: a column of bytes that is in no list.
    ///
    /// Errors: `Corrupt`; `Unsupported` for a compression that is not built in; what the place says.
    pub fn open(group: &dyn RowGroupReader, leaf: usize) -> Result<Values> {
        let level = group.metadata().column(leaf).column_descr().max_def_level();
        let reader = match group.get_column_reader(leaf).map_err(error)? {
            ColumnReader::ByteArrayColumnReader(reader) => Reader::Bytes(reader),
            ColumnReader::FixedLenByteArrayColumnReader(reader) => Reader::Fixed(reader),
            _ => return Err(Error::new(Kind::Bug, "a column of numbers was to be packed")),
        };
        Ok(Values { reader, level })
    }

    /// The next rows, all of them.
    ///
    /// Errors: `Corrupt`, also when there are fewer; what the place says.
    pub fn next(&mut self, rows: usize) -> Result<Rows> {
        let mut all = Vec::with_capacity(rows);
        while all.len() < rows {
            let wanted = rows - all.len();
            let got = match &mut self.reader {
                Reader::Bytes(reader) => some(reader, wanted, self.level, &mut all)?,
                Reader::Fixed(reader) => some(reader, wanted, self.level, &mut all)?,
            };
            if got == 0 {
                return Err(ends("rows than its group says"));
            }
        }
        Ok(all)
    }
}

fn some<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    wanted: usize,
    level: i16,
    all: &mut Rows,
) -> Result<usize>
where
    ByteArray: From<T::T>,
{
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (rows, ..) = reader.read_records(wanted, Some(&mut levels), None, &mut values).map_err(error)?;
    let mut values = values.into_iter().map(ByteArray::from);
    for row in 0..rows {
        let is_null = level > 0 && *levels.get(row).ok_or_else(|| ends("levels than rows"))? < level;
        all.push(match is_null {
            true => None,
            false => Some(values.next().ok_or_else(|| ends("values than rows"))?),
        });
    }
    Ok(rows)
}

fn ends(than: &str) -> Error {
    Error::new(Kind::Corrupt, format!("it is damaged: a column has fewer {than}; get a whole copy of it"))
}
