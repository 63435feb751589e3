//! What streamseg's worker does for every event, without Python.

mod event;
mod event_probe;
mod records;

use pyo3::prelude::*;

#[pymodule]
fn streamseg_engine(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<records::Records>()?;
    m.add_function(wrap_pyfunction!(records::stamp, m)?)?;
    event_probe::register(m)
}
