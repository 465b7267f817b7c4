//! Bound values in CQL's wire form, and rows as the server sent them: nothing is converted on the way.
use scylla::deserialize::row::ColumnIterator;
use scylla::response::query_result::{QueryResult, QueryRowsResult};
use scylla::serialize::row::{RowSerializationContext, SerializeRow};
use scylla::serialize::writers::RowWriter;
use scylla::serialize::SerializationError;

/// Lengths that are none.
pub const NULL: i32 = -1;
pub const UNSET: i32 = -2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Cell {
    pub data: *const u8,
    pub len: i32,
}

/// All values of one statement, copied into one buffer.
#[derive(Default)]
pub struct Row {
    bytes: Vec<u8>,
    cells: Vec<(usize, i32)>,
}

impl Row {
    /// # Safety
    /// Every cell of a length above 0 points to so many bytes.
    pub unsafe fn copied(cells: &[Cell]) -> Row {
        let mut row = Row::default();
        for cell in cells {
            row.cells.push((row.bytes.len(), cell.len));
            if cell.len > 0 {
                row.bytes.extend_from_slice(std::slice::from_raw_parts(cell.data, cell.len as usize));
            }
        }
        row
    }
}

impl SerializeRow for Row {
    fn serialize(&self, ctx: &RowSerializationContext<'_>, w: &mut RowWriter) -> Result<(), SerializationError> {
        if ctx.columns().len() != self.cells.len() {
            return Err(SerializationError::new(std::io::Error::other(format!(
                "{} values bound, the statement has {}",
                self.cells.len(),
                ctx.columns().len()
            ))));
        }
        for &(at, len) in &self.cells {
            let cell = w.make_cell_writer();
            match len {
                UNSET => drop(cell.set_unset()),
                n if n < 0 => drop(cell.set_null()),
                n => drop(cell.set_value(&self.bytes[at..at + n as usize]).map_err(SerializationError::new)?),
            }
        }
        Ok(())
    }
    fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

/// One page of rows; the cells point into the answer's own buffer, which it keeps.
#[derive(Default)]
pub struct Rows {
    pub cells: Vec<Cell>,
    pub columns: Vec<String>,
    pub rows: usize,
    pub more: bool,
    pub paging: Vec<u8>,
    _keep: Option<QueryRowsResult>,
}
unsafe impl Send for Rows {} // the cells' buffer is `_keep`, which goes with them

impl Rows {
    pub fn of(answer: QueryResult) -> Result<Rows, String> {
        let mut out = Rows::default();
        if !answer.is_rows() {
            return Ok(out);
        }
        let rows = answer.into_rows_result().map_err(|e| e.to_string())?;
        out.columns = rows.column_specs().iter().map(|c| c.name().to_string()).collect();
        out.rows = rows.rows_num();
        out.cells.reserve(out.columns.len() * out.rows);
        for row in rows.rows::<ColumnIterator>().map_err(|e| e.to_string())? {
            for column in row.map_err(|e| e.to_string())? {
                let column = column.map_err(|e| e.to_string())?;
                out.cells.push(match column.slice {
                    None => Cell { data: std::ptr::null(), len: NULL },
                    Some(frame) => {
                        let bytes = frame.as_slice();
                        Cell { data: bytes.as_ptr(), len: bytes.len() as i32 }
                    }
                });
            }
        }
        out._keep = Some(rows); // counted by reference: moving it moves no bytes
        Ok(out)
    }
}
