//! The class of Python around one partition's customers: one thread folds, and others may look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyTuple};

use crate::fetched::Fetched;
use crate::partition::{Completed, Due, Folded, Gain, Given, Partition, Setup, Showing};
use crate::records::Records;
use crate::states::{locked, States};
use crate::work::Work;

/// Its functions are those of Partition; what takes long is given as work. Who calls one while another runs waits, and
/// keeps nobody from Python.
#[pyclass(frozen)]
pub struct Engine {
    partition: Arc<Mutex<Partition>>,
    /// Whether all it does needs Python, which has the states.
    is_attached: bool,
}

impl Engine {
    fn own(&self, py: Python) -> MutexGuard<'_, Partition> {
        self.partition.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Work on the partition, and what is made of it for Python; it is done already if it needs Python.
    fn work<T: Send + 'static>(
        &self,
        py: Python,
        work: impl FnOnce(&mut Partition) -> PyResult<T> + Send + 'static,
        give: impl FnOnce(Python, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Work> {
        if self.is_attached {
            let made = work(&mut self.own(py))?;
            return Ok(Work::done(give(py, made)?));
        }
        let partition = self.partition.clone();
        Ok(Work::new(move || work(&mut locked(&partition)), |py, made| give(py, made?)))
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
        let is_attached = !states.is_instance_of::<States>();
        Ok(Engine { partition: Arc::new(Mutex::new(Partition::new(plan, states, setup)?)), is_attached })
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
    fn by_time(&self, py: Python) -> usize {
        self.own(py).by_time()
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
    fn fold(
        &self,
        py: Python,
        records: &Bound<PyAny>,
        start: usize,
        limit: usize,
        topic: String,
        latest: Option<i64>,
        since: f64,
        offset: i64,
        watched: bool,
    ) -> PyResult<Work> {
        let given = Given { topic, latest, since, offset, watched };
        let Ok(fetched) = records.cast::<Fetched>() else {
            return Ok(Work::done(self.own(py).fold_objects(records, start, limit, &given)?.given(py)?));
        };
        let fetched = fetched.clone().unbind();
        self.work(
            py,
            move |own| Ok((own.fold(&fetched.get().view(), start, limit, &given)?, fetched)), // let go of amid Python
            |py, (folded, _): (Folded, _)| folded.given(py),
        )
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

    fn is_stale(&self, py: Python, customer: &[u8]) -> bool {
        self.own(py).is_stale(customer)
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

    fn show_due(&self, py: Python, before: f64, limit: usize, at_once: usize) -> PyResult<Work> {
        self.work(py, move |own| own.show_due(before, limit, at_once), |py, showing: Showing| showing.given(py))
    }

    fn take_late(&self, py: Python) -> Vec<i64> {
        self.own(py).take_late()
    }

    fn take_changed(&self, py: Python) -> Vec<(usize, i32, i32, bool, u64)> {
        self.own(py).take_changed()
    }

    /// Takes the assignments that were `told` before out of there.
    fn complete(
        &self,
        py: Python,
        large: usize,
        at_once: usize,
        told: Option<&Bound<Records>>,
        is_all: bool,
    ) -> PyResult<Work> {
        let mut current = self.own(py).records();
        if let Some(told) = told {
            std::mem::swap(&mut current, &mut told.borrow_mut());
        }
        self.work(
            py,
            move |own| own.complete(current, large, at_once, is_all),
            |py, completed: Completed| completed.given(py),
        )
    }

    fn refresh<'py>(
        &self,
        py: Python<'py>,
        customers: Vec<Bound<'py, PyBytes>>,
        told: bool,
        at_once: usize,
    ) -> PyResult<Py<PyAny>> {
        self.own(py).refresh(py, customers, told, at_once)
    }
}
