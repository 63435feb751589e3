//! State records of one partition in memory, by customer.

use std::sync::Arc;

use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

/// The same as streamseg/worker/memory_states.py, in fewer bytes.
#[pyclass]
#[derive(Default)]
pub struct States {
    pub all: HashMap<Arc<[u8]>, Box<[u8]>>,
}

#[pymethods]
impl States {
    #[new]
    fn new() -> Self {
        States::default()
    }

    fn __len__(&self) -> usize {
        self.all.len()
    }

    fn get<'py>(&self, py: Python<'py>, key: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.all.get(key).map(|data| PyBytes::new(py, data))
    }

    fn put(&mut self, states: &Bound<'_, PyDict>) -> PyResult<()> {
        for (key, data) in states {
            let (key, data) = (key.cast::<PyBytes>()?.as_bytes(), data.cast::<PyBytes>()?.as_bytes());
            match self.all.get_mut(key) {
                Some(known) => *known = data.into(),
                None => drop(self.all.insert(key.into(), data.into())),
            }
        }
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) {
        self.all.remove(key);
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.all.iter().map(|(key, data)| (PyBytes::new(py, key), PyBytes::new(py, data))))
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.all.keys().map(|key| PyBytes::new(py, key)))?.try_iter()?.into_any())
    }

    fn drop(&mut self) {
        self.all = HashMap::new();
    }
}
