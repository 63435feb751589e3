//! A replay's customers under its one clock: lines in, changes out, in the order of streamseg/replay.py.
//!
//! What it is not sure of, Python does: it asks for the customer, and has it until it gives it back.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::deadline::Deadlines;
use crate::event::{decode, digest, Event, Settings};
use crate::message::{put_change, put_current, Told};
use crate::partition::worth;
use crate::plan::Plan;
use crate::profile::{advance_and_drop, apply, is_duplicate, prepare, Positions, Prepared, Profile, UNSET};
use crate::segment::{after, decide, forecast, Ahead, Forecast, Move};
use crate::state::{decode as decode_state, encode};
use crate::states::{Number, Table};
use crate::Unsure;

/// The id of a customer.
type Key = Arc<[u8]>;

struct Customer {
    key: Key,
    number: Number,
    profile: Profile,
}

/// About as many bytes as a change has.
const CHANGE: usize = 640;

/// Where a customer is.
enum Found {
    Here(usize),
    Unknown,
    /// Python has it.
    Elsewhere,
}

/// Why it does not go on.
enum Stop {
    /// So many evaluations were asked for.
    Full,
    /// The next line is for Python.
    Line,
    /// A deadline is for Python.
    Deadline(i64, Key),
}

/// What became of events.
#[derive(Default, Clone, Copy)]
struct Results {
    applied: u64,
    duplicate: u64,
    unmatched: u64,
}

/// What decided.
#[derive(Clone)]
enum By {
    Time(Key),
    /// An event, by its line.
    Event(i64),
}

/// The changes of one evaluation, a line each.
struct Evaluated {
    at: i64,
    by: By,
    lines: Vec<u8>,
}

/// Clocks by lines.
type Clocks = std::collections::HashMap<i64, i64>;

/// Lines that are to be taken.
#[derive(Default)]
struct Batch {
    lines: Vec<PyBackedBytes>,
    numbers: Vec<i64>,
    /// The clock before a line that is late, by its number.
    clocks: Clocks,
    next: usize,
}

#[pyclass]
pub struct Replay {
    plan: Arc<Plan>,
    settings: Settings,
    #[pyo3(get, set)]
    clock: i64,
    /// Changes that were made here.
    #[pyo3(get)]
    changes: u64,
    results: Results,
    deadlines: Deadlines,
    /// Whose the deadlines are. It keeps no states.
    names: Table,
    customers: Vec<Customer>,
    index: HashMap<Key, usize>,
    /// Places of customers that went to Python.
    free: Vec<usize>,
    elsewhere: HashSet<Key>,
    batch: Batch,
    made: Vec<Evaluated>,
    prepared: Prepared,
    positions: Positions,
    ahead: Ahead,
    moves: Vec<Move>,
    found: Vec<Forecast>,
    /// Customers whose assignments are not told yet, the last one first.
    left: Option<Vec<Key>>,
}

impl Replay {
    fn find(&self, customer: &[u8]) -> Found {
        match self.index.get(customer) {
            Some(&place) => Found::Here(place),
            None if !self.elsewhere.is_empty() && self.elsewhere.contains(customer) => Found::Elsewhere,
            None => Found::Unknown,
        }
    }

    fn place(&mut self, key: Key, profile: Profile) -> usize {
        let customer = Customer { key: key.clone(), number: self.names.named(&key), profile };
        let place = match self.free.pop() {
            Some(place) => {
                self.customers[place] = customer;
                place
            }
            None => {
                self.customers.push(customer);
                self.customers.len() - 1
            }
        };
        self.index.insert(key, place);
        place
    }

    fn take_away(&mut self, customer: &[u8]) -> Option<Profile> {
        let place = self.index.remove(customer)?;
        self.free.push(place);
        Some(std::mem::take(&mut self.customers[place].profile))
    }

    // Time

    fn pass(&mut self, now: i64, most: usize) -> PyResult<Option<Stop>> {
        while self.deadlines.next() <= now {
            if self.made.len() >= most {
                return Ok(Some(Stop::Full));
            }
            let Some((due, number, is_due)) = self.deadlines.pop(&self.names) else { break };
            if is_due {
                let key = self.names.key(number).into();
                if !self.fire(due, &key)? {
                    return Ok(Some(Stop::Deadline(due, key)));
                }
            }
        }
        self.clock = self.clock.max(now);
        Ok(None)
    }

    /// Fires a deadline; false if that is for Python.
    fn fire(&mut self, due: i64, key: &Key) -> PyResult<bool> {
        let place = match self.find(key) {
            Found::Here(place) => place,
            Found::Unknown => return Ok(true),
            Found::Elsewhere => return Ok(false),
        };
        let before = self.plan.may_fail.then(|| self.customers[place].profile.clone());
        let plan = self.plan.clone();
        self.clock = self.clock.max(due);
        advance_and_drop(&plan, &mut self.customers[place].profile, due);
        if self.settle(place, due, None).is_err() {
            self.restore(place, before)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn restore(&mut self, place: usize, before: Option<Profile>) -> PyResult<()> {
        let before = before.ok_or_else(|| PyRuntimeError::new_err("the compiled core did not expect to be unsure"))?;
        self.customers[place].profile = before;
        Ok(())
    }

    // Events

    fn take(&mut self, batch: &mut Batch, most: usize) -> PyResult<Option<Stop>> {
        while batch.next < batch.lines.len() {
            if self.made.len() >= most {
                return Ok(Some(Stop::Full));
            }
            let number = batch.numbers[batch.next];
            if let Some(clock) = batch.clocks.get(&number) {
                if let Some(stop) = self.pass(*clock, most)? {
                    return Ok(Some(stop));
                }
            }
            if let Some(stop) = self.one(&batch.lines[batch.next], number, most)? {
                return Ok(Some(stop));
            }
            batch.next += 1;
        }
        Ok(None)
    }

    fn one(&mut self, line: &[u8], number: i64, most: usize) -> PyResult<Option<Stop>> {
        let Some(mut event) = decode(line, &self.settings, None) else { return Ok(Some(Stop::Line)) };
        let name: Cow<str> = match event.name {
            Some(name) => Cow::Borrowed(name),
            None => {
                let name = format!("line:{number}");
                event.fingerprint = digest(&name);
                Cow::Owned(name)
            }
        };
        if event.kind == "purchase" && event.order.is_none() {
            event.order = Some(event.fingerprint);
        }
        if let Some(stop) = self.pass(event.time, most)? {
            return Ok(Some(stop));
        }
        let known = match self.find(event.customer.as_bytes()) {
            Found::Here(place) => Some(place),
            Found::Unknown => None,
            Found::Elsewhere => return Ok(Some(Stop::Line)),
        };
        Ok(if self.apply(known, &event, &name, number)? { None } else { Some(Stop::Line) })
    }

    /// Applies an event at the clock; false if that is for Python, and then nothing has changed.
    fn apply(&mut self, known: Option<usize>, event: &Event, name: &str, number: i64) -> PyResult<bool> {
        let plan = self.plan.clone();
        let place = match known {
            Some(place) => place,
            None => {
                let mut profile = Profile::default();
                profile.renew(&plan);
                self.place(event.customer.as_bytes().into(), profile)
            }
        };
        let profile = &mut self.customers[place].profile;
        let now = profile.moving.at.max(self.clock);
        if is_duplicate(&plan, &profile.kept, event, now) {
            self.results.duplicate += 1;
            return Ok(true);
        }
        let mut unmatched = false;
        let mut sure = prepare(&plan, &profile.kept, event, now, &mut self.prepared).is_ok();
        if sure {
            let before = plan.may_fail.then(|| profile.clone());
            advance_and_drop(&plan, profile, now);
            unmatched = apply(&plan, profile, event, now, &self.prepared);
            if self.settle(place, now, Some((name, number))).is_err() {
                self.restore(place, before)?;
                sure = false;
            }
        }
        if !sure {
            if known.is_none() {
                self.take_away(event.customer.as_bytes());
            }
            return Ok(false);
        }
        *if unmatched { &mut self.results.unmatched } else { &mut self.results.applied } += 1;
        Ok(true)
    }

    /// Evaluates at `now`, where the customer is, writes what moved, and sets the next deadline.
    fn settle(&mut self, place: usize, now: i64, cause: Option<(&str, i64)>) -> Result<(), Unsure> {
        let plan = self.plan.clone();
        let Customer { number, profile, .. } = &mut self.customers[place];
        decide(&plan, &profile.kept, &mut profile.moving, now, &mut self.moves, &mut self.ahead.spare)?;
        profile.wake = after(&plan, &profile.kept, &profile.moving, now)?;
        profile.worth = worth(&plan, profile, now)?;
        let (wake, number) = (profile.wake, *number);
        if !self.moves.is_empty() {
            self.tell(place, now, cause)?;
        }
        self.deadlines.queue(number, wake, &self.names);
        Ok(())
    }

    fn tell(&mut self, place: usize, now: i64, cause: Option<(&str, i64)>) -> Result<(), Unsure> {
        let plan = self.plan.clone();
        let Customer { key, profile, .. } = &mut self.customers[place];
        forecast(&plan, profile, now, &mut self.ahead, &mut self.found)?;
        let customer = std::str::from_utf8(key).map_err(|_| Unsure)?;
        let mut lines = vec![];
        let mut version = profile.version;
        for each in &self.moves {
            version = version.checked_add(1).ok_or(Unsure)?;
            let following = self.found[each.scheme];
            let told = Told { version, cause: cause.map(|(name, _)| name), following, complete: true };
            lines.reserve(CHANGE);
            put_change(&mut lines, &plan, customer, profile, now, each, &told)?;
            lines.push(b'\n');
        }
        profile.version = version;
        let by = cause.map_or_else(|| By::Time(key.clone()), |(_, number)| By::Event(number));
        self.made.push(Evaluated { at: now, by, lines });
        self.changes += self.moves.len() as u64;
        Ok(())
    }

    fn key(&self, customer: &[u8]) -> Key {
        self.index.get_key_value(customer).map_or_else(|| customer.into(), |(key, _)| key.clone())
    }
}

/// A customer, and its assignment as a line.
type Assignment<'py> = (Bound<'py, PyString>, Option<Bound<'py, PyBytes>>);
/// How it ended, and the deadline if one is for Python.
type Ended<'py> = (&'static str, Option<(i64, Bound<'py, PyString>)>);

fn ended<'py>(py: Python<'py>, stop: Option<Stop>) -> PyResult<Ended<'py>> {
    Ok(match stop {
        None => ("done", None),
        Some(Stop::Full) => ("full", None),
        Some(Stop::Line) => ("line", None),
        Some(Stop::Deadline(due, key)) => ("deadline", Some((due, text(py, &key)?))),
    })
}

fn text<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let text = std::str::from_utf8(key).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(PyString::new(py, text))
}

#[pymethods]
impl Replay {
    /// plan: MessagePack, see streamseg/formats/native_plan.py.
    #[new]
    fn new(plan: &[u8]) -> PyResult<Self> {
        let plan = Plan::read(plan).map_err(PyValueError::new_err)?;
        Ok(Replay {
            settings: Settings { currency: plan.currency.clone(), digits: plan.digits },
            plan: Arc::new(plan),
            clock: 0,
            changes: 0,
            results: Results::default(),
            deadlines: Deadlines::default(),
            names: Table::default(),
            customers: vec![],
            index: HashMap::new(),
            free: vec![],
            elsewhere: HashSet::new(),
            batch: Batch::default(),
            made: vec![],
            prepared: Prepared::new(),
            positions: Positions::default(),
            ahead: Ahead::default(),
            moves: vec![],
            found: vec![],
            left: None,
        })
    }

    /// Hands lines over, with their numbers, and the clock before those that are late.
    fn give(&mut self, lines: Vec<PyBackedBytes>, numbers: Vec<i64>, clocks: Clocks) -> PyResult<()> {
        if lines.len() != numbers.len() {
            return Err(PyValueError::new_err("each line has a number"));
        }
        self.batch = Batch { lines, numbers, clocks, next: 0 };
        Ok(())
    }

    /// Takes lines, until about so many evaluations have made changes. "done", "full", "line" if the next one is for
    /// Python, "deadline" with one that is.
    fn run<'py>(&mut self, py: Python<'py>, most: usize) -> PyResult<Ended<'py>> {
        let mut batch = std::mem::take(&mut self.batch);
        let stop = py.detach(|| self.take(&mut batch, most));
        self.batch = batch;
        ended(py, stop?)
    }

    /// Number and text of the next line, which is passed over.
    fn skip<'py>(&mut self, py: Python<'py>) -> PyResult<(i64, Bound<'py, PyBytes>)> {
        let place = self.batch.next;
        let (Some(line), Some(number)) = (self.batch.lines.get(place), self.batch.numbers.get(place)) else {
            return Err(PyValueError::new_err("there is no further line"));
        };
        self.batch.next += 1;
        Ok((*number, PyBytes::new(py, line)))
    }

    /// Moves the clock and fires deadlines, until about so many evaluations have made changes.
    fn advance<'py>(&mut self, py: Python<'py>, now: i64, most: usize) -> PyResult<Ended<'py>> {
        let stop = py.detach(|| self.pass(now, most))?;
        ended(py, stop)
    }

    /// The changes since the last call, a line each.
    fn drain<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut lines = Vec::with_capacity(self.made.iter().map(|each| each.lines.len()).sum());
        self.made.drain(..).for_each(|each| lines.extend_from_slice(&each.lines));
        PyBytes::new(py, &lines)
    }

    /// The same by evaluation, each with its key: see streamseg/shards.py.
    fn drain_keyed<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for Evaluated { at, by, lines } in self.made.drain(..) {
            let data = PyBytes::new(py, &lines);
            match by {
                By::Time(key) => list.append(((at, false, text(py, &key)?), data))?,
                By::Event(number) => list.append(((at, true, number), data))?,
            }
        }
        Ok(list)
    }

    // For Python's lane

    /// The state record of a customer, who is Python's from now on; None for one that is not here.
    fn release<'py>(&mut self, py: Python<'py>, customer: &[u8]) -> Option<Bound<'py, PyBytes>> {
        let key = self.key(customer);
        if !self.elsewhere.insert(key) {
            return None;
        }
        let profile = self.take_away(customer)?;
        let mut data = vec![];
        encode(&self.plan, &profile, 0, &mut data);
        Some(PyBytes::new(py, &data))
    }

    /// Takes a customer back; false if Python has to keep it.
    fn take_back(&mut self, customer: &[u8], state: &[u8]) -> bool {
        let mut profile = Profile::default();
        let plan = self.plan.clone();
        if decode_state(&plan, state, &mut profile, &mut self.positions).is_err() {
            return false;
        }
        let key = self.elsewhere.take(customer).unwrap_or_else(|| customer.into());
        self.place(key, profile);
        true
    }

    /// Expects to wake a customer of Python's.
    fn queue(&mut self, customer: &[u8], wake: i64) {
        let number = self.names.named(customer);
        self.deadlines.queue(number, wake, &self.names);
    }

    // What it comes to, of the customers that are here

    /// How many customers there are.
    fn __len__(&self) -> usize {
        self.index.len()
    }

    /// How many events were applied, how many duplicate, how many unmatched.
    fn results(&self) -> (u64, u64, u64) {
        (self.results.applied, self.results.duplicate, self.results.unmatched)
    }

    /// Customers and their worth, by scheme and segment.
    fn sizes(&self) -> Vec<Vec<(u64, i128)>> {
        let mut found: Vec<Vec<(u64, i128)>> =
            self.plan.schemes.iter().map(|scheme| vec![(0, 0); scheme.names.len()]).collect();
        for &place in self.index.values() {
            let profile = &self.customers[place].profile;
            for (sizes, &segment) in found.iter_mut().zip(&profile.moving.segments) {
                if segment != UNSET {
                    let size = &mut sizes[segment as usize];
                    *size = (size.0 + 1, size.1 + i128::from(profile.worth));
                }
            }
        }
        found
    }

    /// The next customers in order, at most so many, Python's among them, each with its assignment as a line; None
    /// where that is for Python to tell. Once there are no more it begins anew.
    fn assignments<'py>(&mut self, py: Python<'py>, most: usize) -> PyResult<Vec<Assignment<'py>>> {
        let mut left = self.left.take().unwrap_or_else(|| {
            let mut all: Vec<Key> = self.index.keys().chain(&self.elsewhere).cloned().collect();
            all.sort_unstable_by(|one, other| other.cmp(one));
            all
        });
        let mut found = vec![];
        while found.len() < most {
            let Some(key) = left.pop() else { break };
            found.push((text(py, &key)?, self.assignment(&key).map(|line| PyBytes::new(py, &line))));
        }
        if !found.is_empty() {
            self.left = Some(left);
        }
        Ok(found)
    }
}

impl Replay {
    fn assignment(&mut self, key: &Key) -> Option<Vec<u8>> {
        let profile = &self.customers[*self.index.get(key)?].profile;
        forecast(&self.plan, profile, profile.moving.at, &mut self.ahead, &mut self.found).ok()?;
        let mut line = Vec::with_capacity(256 + 160 * self.plan.schemes.len());
        put_current(&mut line, &self.plan, std::str::from_utf8(key).ok()?, profile, &self.found);
        line.push(b'\n');
        Some(line)
    }
}
