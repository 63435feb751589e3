//! What streamseg's worker does for every event, without Python.

use pyo3::prelude::*;

#[pymodule]
fn streamseg_engine(_m: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
