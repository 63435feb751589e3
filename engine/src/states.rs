//! State records of one partition in memory, by customer. A customer has a number, as long as anything is known of it.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

/// The number of a customer.
pub type Number = u32;

/// Before a customer's id: its length.
const LENGTH: usize = 2;

/// Of so many customers memory is asked for at once.
pub const AHEAD: usize = 16;
/// What a processor fetches at once, in bytes.
const LINE: usize = 64;
/// Of so many lines of a customer, at most: behind them the processor sees by itself what will be read.
const LINES: usize = 16;

/// Customers by their numbers, and their states.
#[derive(Default)]
pub struct Table {
    numbers: HashTable<Number>,
    /// By number: the length of the id, the id, the state, which may be missing; nothing if there is no such customer.
    pieces: Vec<Box<[u8]>>,
    free: Vec<Number>,
    stored: usize,
    hasher: DefaultHashBuilder,
}

/// The id, and the state.
fn parts(piece: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = piece.split_first_chunk::<LENGTH>() else { return (&[], &[]) };
    rest.split_at_checked(u16::from_le_bytes(*length) as usize).unwrap_or((&[], &[]))
}

fn join(key: &[u8], state: &[u8]) -> Box<[u8]> {
    let mut piece = Vec::with_capacity(LENGTH + key.len() + state.len());
    piece.extend_from_slice(&(key.len() as u16).to_le_bytes());
    piece.extend_from_slice(key);
    piece.extend_from_slice(state);
    piece.into_boxed_slice()
}

impl Table {
    fn parts(&self, number: Number) -> (&[u8], &[u8]) {
        self.pieces.get(number as usize).map_or((&[], &[]), |piece| parts(piece))
    }

    pub fn key(&self, number: Number) -> &[u8] {
        self.parts(number).0
    }

    /// The state of a customer, if it is here.
    pub fn state(&self, number: Number) -> Option<&[u8]> {
        Some(self.parts(number).1).filter(|state| !state.is_empty())
    }

    pub fn number(&self, key: &[u8]) -> Option<Number> {
        let hash = self.hasher.hash_one(key);
        self.numbers.find(hash, |&number| parts(&self.pieces[number as usize]).0 == key).copied()
    }

    /// The numbers that customers have, if they have one: not that of somebody else, mostly.
    pub fn likely<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> [Number; AHEAD] {
        let mut found = [Number::MAX; AHEAD];
        for (key, number) in keys.zip(&mut found) {
            let hash = self.hasher.hash_one(key);
            *number = self.numbers.iter_hash(hash).next().copied().unwrap_or(Number::MAX);
        }
        found
    }

    /// Looks at all there is of customers, so that it is at hand. The processor waits for memory once for many that it
    /// is asked for together; asked for one after another, it waits for each.
    pub fn warm(&self, numbers: impl IntoIterator<Item = Number>) {
        let mut seen = 0;
        for piece in numbers.into_iter().filter_map(|number| self.pieces.get(number as usize)) {
            piece.chunks(LINE).take(LINES).for_each(|line| seen ^= line[0]);
        }
        std::hint::black_box(seen);
    }

    /// The number of a customer, who gets one if there is none. Ids are of less than 65,536 bytes.
    pub fn named(&mut self, key: &[u8]) -> Number {
        let Table { numbers, pieces, free, hasher, .. } = self;
        let found = numbers.entry(
            hasher.hash_one(key),
            |&number| parts(&pieces[number as usize]).0 == key,
            |&number| hasher.hash_one(parts(&pieces[number as usize]).0),
        );
        match found {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                let number = free.pop().unwrap_or(pieces.len() as Number);
                if number as usize == pieces.len() {
                    pieces.push(Box::default());
                }
                vacant.insert(number);
                pieces[number as usize] = join(key, &[]);
                number
            }
        }
    }

    /// Keeps a state.
    pub fn keep(&mut self, number: Number, state: &[u8]) {
        let piece = &mut self.pieces[number as usize];
        let known = parts(piece).1.len();
        self.stored += usize::from(known == 0);
        let start = piece.len() - known;
        if known == state.len() {
            piece[start..].copy_from_slice(state);
            return;
        }
        let mut bytes = std::mem::take(piece).into_vec();
        bytes.truncate(start);
        bytes.reserve_exact(state.len()); // a block has room to spare, mostly: then it stays where it is
        bytes.extend_from_slice(state);
        *piece = bytes.into_boxed_slice();
    }

    /// Forgets a customer.
    pub fn forget(&mut self, number: Number) {
        let hash = self.hasher.hash_one(self.key(number));
        if let Ok(found) = self.numbers.find_entry(hash, |&known| known == number) {
            found.remove();
            self.stored -= usize::from(self.state(number).is_some());
            self.pieces[number as usize] = Box::default();
            self.free.push(number);
        }
    }

    /// The numbers of all whose states are here, with the states.
    pub fn all(&self) -> impl Iterator<Item = (Number, &[u8])> {
        (0..).zip(&self.pieces).map(|(number, piece)| (number, parts(piece).1)).filter(|(_, state)| !state.is_empty())
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.pieces.iter().map(|piece| parts(piece)).filter(|(_, state)| !state.is_empty())
    }
}

/// The same as streamseg/worker/memory_states.py, in fewer bytes: id and state are one piece of memory.
///
/// Shared with the engine, which looks up customers while other threads run Python.
#[pyclass(frozen)]
#[derive(Default)]
pub struct States(Arc<Mutex<Table>>);

impl States {
    pub fn shared(&self) -> Arc<Mutex<Table>> {
        self.0.clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        locked(&self.0)
    }
}

/// What is behind a mutex, such as the table; if a thread came to grief over it, as that left it.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl States {
    #[new]
    fn new() -> Self {
        States::default()
    }

    fn __len__(&self) -> usize {
        self.table().stored
    }

    fn get<'py>(&self, py: Python<'py>, key: &[u8]) -> Option<Bound<'py, PyBytes>> {
        let table = self.table();
        table.number(key).and_then(|number| table.state(number)).map(|state| PyBytes::new(py, state))
    }

    fn put(&self, states: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut table = self.table();
        for (key, data) in states {
            let (key, data) = (key.cast::<PyBytes>()?.as_bytes(), data.cast::<PyBytes>()?.as_bytes());
            if key.len() > u16::MAX as usize {
                return Err(PyValueError::new_err("the id of a customer is too long"));
            }
            let number = table.named(key);
            table.keep(number, data);
        }
        Ok(())
    }

    fn delete(&self, key: &[u8]) {
        let mut table = self.table();
        if let Some(number) = table.number(key) {
            table.forget(number);
        }
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let table = self.table();
        let all: Vec<_> =
            table.entries().map(|(key, state)| (PyBytes::new(py, key), PyBytes::new(py, state))).collect();
        PyList::new(py, all)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let table = self.table();
        let keys: Vec<_> = table.entries().map(|(key, _)| PyBytes::new(py, key)).collect();
        Ok(PyList::new(py, keys)?.try_iter()?.into_any())
    }

    fn drop(&self) {
        *self.table() = Table::default();
    }
}
