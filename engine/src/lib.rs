//! What streamseg's worker does for every event, without Python.

mod event;
mod event_probe;

use pyo3::prelude::*;

#[pymodule]
fn streamseg_engine(m: &Bound<'_, PyModule>) -> PyResult<()> {
    event_probe::register(m)
}
