//! The class of Python around one partition's customers: one thread folds, and others may look.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyTuple};

use crate::partition::{Due, Folded, Gain, Partition, Setup};
use crate::records::Records;

/// Its functions are those of Partition. Who calls one while another runs waits, and keeps nobody from Python.
#[pyclass(frozen)]
pub struct Engine(Mutex<Partition>);

impl Engine {
    fn own(&self, py: Python) -> MutexGuard<'_, Partition> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (plan, states, *, partition, partitions, by_murmur2, by_key, outbox_bytes, deadlines_at_once, batch_bytes, max_record_bytes, source, rooms, small))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        plan: &[u8],
        states: Bound<PyAny>,
        partition: i64,
        partitions: u32,
        by_murmur2: bool,
        by_key: bool,
        outbox_bytes: usize,
        deadlines_at_once: usize,
        batch_bytes: usize,
        max_record_bytes: usize,
        source: &[u8],
        rooms: usize,
        small: usize,
    ) -> PyResult<Self> {
        let source = source.to_vec();
        let setup = Setup {
            partition,
            partitions,
            by_murmur2,
            by_key,
            outbox_bytes,
            deadlines_at_once,
            batch_bytes,
            max_record_bytes,
            source,
            rooms,
            small,
        };
        Ok(Engine(Mutex::new(Partition::new(plan, states, setup)?)))
    }

    #[getter]
    fn clock(&self, py: Python) -> i64 {
        self.own(py).clock
    }

    #[setter]
    fn set_clock(&self, py: Python, clock: i64) {
        self.own(py).clock = clock;
    }

    #[getter]
    fn observed_from(&self, py: Python) -> i64 {
        self.own(py).observed_from
    }

    #[setter]
    fn set_observed_from(&self, py: Python, observed_from: i64) {
        self.own(py).observed_from = observed_from;
    }

    #[getter]
    fn epoch(&self, py: Python) -> u32 {
        self.own(py).epoch
    }

    #[setter]
    fn set_epoch(&self, py: Python, epoch: u32) {
        self.own(py).epoch = epoch;
    }

    #[getter]
    fn next_deadline(&self, py: Python) -> i64 {
        self.own(py).next_deadline()
    }

    #[getter]
    fn pending(&self, py: Python) -> usize {
        self.own(py).pending()
    }

    #[getter]
    fn brimming(&self, py: Python) -> bool {
        self.own(py).brimming()
    }

    #[getter]
    fn touched(&self, py: Python) -> usize {
        self.own(py).touched()
    }

    fn load<'py>(&self, py: Python<'py>) -> PyResult<(usize, Vec<Gain<'py>>)> {
        self.own(py).load(py)
    }

    fn drop_all(&self, py: Python) {
        self.own(py).drop_all();
    }

    #[allow(clippy::too_many_arguments)]
    fn fold<'py>(
        &self,
        py: Python<'py>,
        records: &Bound<'py, PyAny>,
        start: usize,
        limit: usize,
        topic: &str,
        latest: Option<i64>,
        since: f64,
        offset: i64,
    ) -> PyResult<Folded<'py>> {
        self.own(py).fold(py, records, start, limit, topic, latest, since, offset)
    }

    fn advance<'py>(
        &self,
        py: Python<'py>,
        now: i64,
        limit: Option<usize>,
    ) -> PyResult<(&'static str, Option<Due<'py>>)> {
        self.own(py).advance(py, now, limit)
    }

    fn queue(&self, py: Python, customer: &[u8], wake: i64) {
        self.own(py).queue(customer, wake);
    }

    fn release<'py>(&self, py: Python<'py>, customer: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.own(py).release(py, customer)
    }

    fn note_stale(&self, py: Python, customer: &[u8], since: f64, offset: i64) {
        self.own(py).note_stale(customer, since, offset);
    }

    fn drop_stale(&self, py: Python, customer: &[u8]) {
        self.own(py).drop_stale(customer);
    }

    fn unforeseen(&self, py: Python) -> Option<i64> {
        self.own(py).unforeseen()
    }

    fn due(&self, py: Python, before: f64, most: usize) -> usize {
        self.own(py).due(before, most)
    }

    fn show_due<'py>(
        &self,
        py: Python<'py>,
        before: f64,
        limit: usize,
        at_once: usize,
    ) -> PyResult<Bound<'py, PyTuple>> {
        self.own(py).show_due(py, before, limit, at_once)
    }

    fn take_late(&self, py: Python) -> Vec<i64> {
        self.own(py).take_late()
    }

    fn take_changed(&self, py: Python) -> Vec<(usize, i32, i32, bool, u64)> {
        self.own(py).take_changed()
    }

    #[pyo3(signature = (large, at_once, told = None))]
    fn complete<'py>(
        &self,
        py: Python<'py>,
        large: usize,
        at_once: usize,
        told: Option<&Bound<'py, Records>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        self.own(py).complete(py, large, at_once, told)
    }

    fn refresh<'py>(
        &self,
        py: Python<'py>,
        customers: Vec<Bound<'py, PyBytes>>,
        told: bool,
        at_once: usize,
    ) -> PyResult<Bound<'py, PyTuple>> {
        self.own(py).refresh(py, customers, told, at_once)
    }
}
