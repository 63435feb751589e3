//! What streamseg's worker does for every event, without Python.

mod records;

use pyo3::prelude::*;

#[pymodule]
fn streamseg_engine(m: &Bound<'_, PyModule>) -> PyResult<()> {
    records::register(m)
}
