//! One partition's customers under its clock: events in, records out. What it is not sure of, Python does.
//!
//! A *group* is what is folded between two calls of `complete`. Within a group a customer is in one of two lanes:
//! decoded here, or owned by Python, which then does everything for it until the group is complete.

use std::borrow::Cow;
use std::iter;
use std::sync::{Arc, Mutex};

use hashbrown::{HashMap, HashSet};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::census::Gains;
use crate::deadline::Deadlines;
use crate::event::{decode, digest, Event, Settings};
use crate::fetched::{Raw, View};
use crate::group::{Counting, Group};
use crate::message::{push_change, put_change, put_current, put_entry, rounded, with_outbox, Counted, Sent, Told};
use crate::placement::partition_of;
use crate::plan::Plan;
use crate::profile::{advance_and_drop, apply, is_duplicate, is_slight, prepare, Positions, Prepared, Profile};
use crate::records::Records;
use crate::segment::{after, decide, forecast, Ahead, Forecast, Move};
use crate::stale::Stale;
use crate::state::{decode as decode_state, summary};
use crate::states::{locked, Number, States, Table, AHEAD};
use crate::time::NEVER;
use crate::value::{alone, Scope, Val};
use crate::Unsure;

/// Observed from the very beginning of the input.
const COMPLETE: i64 = -1;

/// What is found of a customer.
enum Found {
    Here(usize),
    Unknown,
    /// Python has it, or has to read it.
    Elsewhere,
}

enum Passed {
    Done,
    Left,
    Python(i64, Number),
}

enum Taken {
    As(&'static str),
    Unsure,
}

/// Segments, and worth and customers that the census gains there.
pub type Gain<'py> = (Bound<'py, PyBytes>, i64, i64);
/// A deadline and its customer.
pub type Due<'py> = (i64, Bound<'py, PyBytes>);

/// What a fold comes to.
pub struct Folded {
    taken: usize,
    how: &'static str,
    /// A deadline that is for Python, and whose.
    deadline: Option<(i64, Vec<u8>)>,
    counts: Counts,
}

impl Folded {
    /// How many events were folded, how that ended ("events", "python", "brimming" or "deadline"), the deadline, and
    /// the events by class and result.
    pub fn given(self, py: Python) -> PyResult<Py<PyAny>> {
        let deadline = self.deadline.map(|(due, key)| (due, PyBytes::new(py, &key)));
        Ok((self.taken, self.how, deadline, self.counts.0).into_pyobject(py)?.into_any().unbind())
    }
}

/// What was found of a stored state.
enum Stored {
    Unknown,
    /// Python has to read it.
    Unsure,
    Read(Number, Option<Counting>),
}

/// What a group comes to.
pub struct Completed {
    states: Records,
    changes: Records,
    current: Records,
    /// For Redis, what events caused: with the instants of these.
    caused: Vec<(Piece, Vec<i64>)>,
    /// The same of what time alone did, each of one customer.
    entries: Vec<(Vec<u8>, usize, String)>,
    /// States that Python keeps.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    gains: Gains,
    new: usize,
    /// How many states are large.
    large: usize,
}

impl Completed {
    /// State records, changes, assignments (each as Records), pieces for Redis of what events caused (with the instants
    /// of these events), entries for Redis of what time alone did, states to keep, gains of the census, new customers,
    /// and how many states are large.
    pub fn given(self, py: Python) -> PyResult<Py<PyAny>> {
        let Completed { states, changes, current, caused, entries, kept, gains, new, large } = self;
        let pieces = PyList::empty(py);
        for ((packed, elements, customers), instants) in caused {
            pieces.append((PyBytes::new(py, &packed), elements, customers, instants))?;
        }
        let list = PyList::empty(py);
        for (packed, elements, customer) in entries {
            list.append((PyBytes::new(py, &packed), elements, customer))?;
        }
        let dict = PyDict::new(py);
        for (key, data) in kept {
            dict.set_item(PyBytes::new(py, &key), PyBytes::new(py, &data))?;
        }
        let given = (states, changes, current, pieces, list, dict, gains.list(py), new, large);
        Ok(given.into_pyobject(py)?.into_any().unbind())
    }
}

/// Why a fold ended.
enum End {
    /// The next event is for Python.
    Python,
    /// A deadline is for Python.
    Deadline(i64, Number),
}

/// What a partition is told once.
pub struct Setup {
    pub partition: i64,
    pub partitions: u32,
    pub by_murmur2: bool,
    pub by_key: bool,
    pub outbox_bytes: usize,
    pub deadlines_at_once: usize,
    pub batch_bytes: usize,
    pub max_record_bytes: usize,
    pub source: Vec<u8>,
    /// Profiles of a group that are kept as such.
    pub rooms: usize,
    /// … in any case if they are of more numbers than so many.
    pub small: usize,
}

impl Setup {
    /// Room for what is to be appended.
    fn records(&self) -> Records {
        Records::new(self.batch_bytes, self.max_record_bytes)
    }
}

pub struct Partition {
    plan: Arc<Plan>,
    settings: Settings,
    /// All customers of whom anything is known, and their states, unless these are elsewhere.
    states: Arc<Mutex<Table>>,
    /// What keeps the states, if that is in Python.
    elsewhere: Option<Py<PyAny>>,
    setup: Setup,
    pub clock: i64,
    pub observed_from: i64,
    pub epoch: u32,
    deadlines: Deadlines,
    group: Group,
    dirty: Vec<usize>,
    told: Vec<usize>,
    owned: HashSet<Number>,
    stale: Stale,
    /// One that is nobody's.
    spare: Profile,
    changed: HashMap<(usize, i32, i32, bool), u64>,
    late: Vec<i64>,
    by_time: usize,
    brimming: bool,
    /// Whether what is told of the customer of the last event still holds.
    is_told: bool,
    /// The forecasts before that event, and behind it.
    foreseen: [Vec<Forecast>; 2],
    positions: Positions,
    prepared: Prepared,
    ahead: Ahead,
    moves: Vec<Move>,
}

impl Partition {
    // Customers

    fn key<'py>(&self, py: Python<'py>, number: Number) -> Bound<'py, PyBytes> {
        PyBytes::new(py, locked(&self.states).key(number))
    }

    fn find(&mut self, states: &mut Table, customer: &[u8]) -> PyResult<Found> {
        let Partition { plan, group, positions, epoch, .. } = self;
        if let Some(place) = group.get(customer) {
            let is_sure = group.heat(place, plan, *epoch, positions).is_ok();
            return Ok(if is_sure { Found::Here(place) } else { Found::Elsewhere });
        }
        let number = states.number(customer);
        if number.is_some_and(|number| self.owned.contains(&number)) {
            return Ok(Found::Elsewhere);
        }
        let profile = group.room(plan, *epoch);
        Ok(match read(plan, &self.elsewhere, states, customer, number, profile, positions)? {
            Stored::Read(number, counted) => Found::Here(group.place(number, customer, counted)),
            Stored::Unsure => Found::Elsewhere,
            Stored::Unknown => Found::Unknown,
        })
    }

    /// Lets go of the number of a customer of whom nothing is known any more.
    fn let_go(&self, states: &mut Table, number: Number) {
        if states.state(number).is_none() && self.deadlines.is_free(number) && !self.stale.has(number) {
            states.forget(number);
        }
    }

    /// Has at hand what there is of customers who come next.
    fn warm(&self, states: &Table, customers: impl IntoIterator<Item = Number> + Clone) {
        states.warm(customers.clone());
        self.deadlines.warm(customers);
    }

    fn touch(&mut self, place: usize) {
        let slot = &mut self.group.slots[place];
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(place);
        }
    }

    // Time

    fn pass(&mut self, states: &mut Table, now: i64, limit: usize) -> PyResult<Passed> {
        let mut fired = 0;
        while self.deadlines.next() <= now {
            if fired >= limit {
                return Ok(Passed::Left);
            }
            let Some((due, number, is_due)) = self.deadlines.pop(states) else { break };
            if !is_due {
                let is_here = self.group.get(states.key(number)).is_some();
                if !is_here && !self.owned.contains(&number) {
                    self.let_go(states, number);
                }
                continue;
            }
            match self.fire(states, due, number)? {
                Some(true) => fired += 1,
                Some(false) => {}
                None => return Ok(Passed::Python(due, number)),
            }
        }
        self.clock = self.clock.max(now);
        Ok(Passed::Done)
    }

    /// Whether a deadline came to something; None if that is for Python to find out.
    fn fire(&mut self, states: &mut Table, due: i64, number: Number) -> PyResult<Option<bool>> {
        let key = states.key(number).to_vec();
        match self.find(states, &key)? {
            Found::Here(place) => {
                if !self.move_on(place, due)? {
                    return Ok(None);
                }
                self.wait(states, place);
                Ok(Some(true))
            }
            Found::Unknown => Ok(Some(false)),
            Found::Elsewhere => Ok(None),
        }
    }

    /// Moves a customer to a deadline of it; false if that is for Python, and nothing is done.
    fn move_on(&mut self, place: usize, due: i64) -> PyResult<bool> {
        let before = self.plan.may_fail.then(|| self.group.profile(place).clone());
        let plan = self.plan.clone();
        self.clock = self.clock.max(due);
        advance_and_drop(&plan, self.group.both(place).1, due);
        if self.settle(place, due, None).is_err() {
            self.restore(place, before)?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Fires what a customer has until an event of it, before what others have; gives what is for Python.
    fn pass_own(&mut self, states: &mut Table, place: usize, time: i64) -> PyResult<Option<(i64, Number)>> {
        let now = self.group.profile(place).moving.at.max(self.clock).max(time);
        if self.group.profile(place).wake > now {
            return Ok(None);
        }
        let mut left = None;
        while left.is_none() && self.group.profile(place).wake <= now {
            let (due, number) = (self.group.profile(place).wake, self.group.slots[place].number);
            left = (!self.move_on(place, due)?).then_some((due, number));
        }
        self.wait(states, place); // once: what it was put off by meanwhile has passed
        Ok(left)
    }

    /// Puts what a customer waits for on the heap.
    fn wait(&mut self, states: &Table, place: usize) {
        self.deadlines.queue(self.group.slots[place].number, self.group.profile(place).wake, states);
    }

    fn restore(&mut self, place: usize, before: Option<Profile>) -> PyResult<()> {
        let before = before.ok_or_else(|| PyRuntimeError::new_err("the compiled core did not expect to be unsure"))?;
        *self.group.both(place).1 = before;
        Ok(())
    }

    // Events

    fn take(
        &mut self,
        states: &mut Table,
        customer: &str,
        known: Option<usize>,
        event: &Event,
        name: &str,
        watched: bool,
    ) -> PyResult<(Taken, usize)> {
        let plan = self.plan.clone();
        self.clock = self.clock.max(event.time);
        let watched = watched && known.is_some_and(|place| !self.stale.has(self.group.slots[place].number));
        self.is_told = watched;
        let place = match known {
            Some(place) => place,
            None => {
                self.group.room(&plan, self.epoch).renew(&plan);
                self.group.place(states.named(customer.as_bytes()), customer.as_bytes(), None)
            }
        };
        let profile = self.group.profile(place);
        let now = profile.moving.at.max(self.clock);
        if is_duplicate(&plan, &profile.kept, event, now) {
            return Ok((Taken::As("duplicate"), place));
        }
        if prepare(&plan, &profile.kept, event, now, &mut self.prepared).is_err() {
            if known.is_none() {
                self.group.forget(place);
            }
            return Ok((Taken::Unsure, place));
        }
        self.is_told = false;
        let slight = watched && is_slight(&plan, self.group.profile(place), event, &self.prepared);
        let watched = watched && (slight || self.foresee(place, 0));
        let before = plan.may_fail.then(|| self.group.profile(place).clone());
        let profile = self.group.both(place).1;
        advance_and_drop(&plan, profile, now);
        let unmatched = apply(&plan, profile, event, now, &self.prepared);
        if self.settle(place, now, Some(name)).is_err() {
            self.restore(place, before)?;
            if known.is_none() {
                self.group.forget(place);
            }
            return Ok((Taken::Unsure, place));
        }
        if watched && !self.is_told {
            self.is_told = slight || (self.foresee(place, 1) && self.foreseen[0] == self.foreseen[1]);
        }
        self.wait(states, place);
        self.touch(place);
        Ok((Taken::As(if unmatched { "unmatched" } else { "applied" }), place))
    }

    /// Notes what is ahead of a customer, before an event or behind it; false if that is not sure.
    fn foresee(&mut self, place: usize, which: usize) -> bool {
        let Partition { plan, group, ahead, foreseen, .. } = self;
        let profile = group.profile(place);
        forecast(plan, profile, profile.moving.at, ahead, &mut foreseen[which]).is_ok()
    }

    /// Evaluates at `now`, where the customer is, publishes what moved, and finds the next deadline.
    fn settle(&mut self, place: usize, now: i64, cause: Option<&str>) -> Result<(), Unsure> {
        let plan = self.plan.clone();
        let profile = self.group.both(place).1;
        let mut moves = std::mem::take(&mut self.moves);
        decide(&plan, &profile.kept, &mut profile.moving, now, &mut moves, &mut self.ahead.spare)?;
        profile.wake = after(&plan, &profile.kept, &profile.moving, now)?;
        profile.worth = worth(&plan, profile, now)?;
        if !moves.is_empty() {
            self.tell(place, &moves, now, cause)?;
            self.touch(place);
        }
        self.moves = moves;
        Ok(())
    }

    fn tell(&mut self, place: usize, moves: &[Move], now: i64, cause: Option<&str>) -> Result<(), Unsure> {
        let plan = self.plan.clone();
        let (slot, profile, bodies) = self.group.telling(place);
        let mut found = vec![];
        forecast(&plan, profile, now, &mut self.ahead, &mut found)?;
        let customer = std::str::from_utf8(&slot.key).map_err(|_| Unsure)?;
        let mut version = profile.version;
        let mut sent = Vec::with_capacity(moves.len());
        for each in moves {
            version = version.checked_add(1).ok_or(Unsure)?;
            let scheme = &plan.schemes[each.scheme];
            let complete = self.observed_from == COMPLETE
                || scheme.longest == 0
                || (!scheme.endless && now - scheme.longest >= self.observed_from);
            let told = Told { version, cause, following: found[each.scheme], complete };
            let start = bodies.len();
            put_change(bodies, &plan, customer, profile, now, each, &told)?;
            sent.push(Sent { version, at: now, place: start..bodies.len() });
        }
        profile.version = version;
        if slot.told.is_none() {
            slot.told = Some(Box::default());
            self.told.push(place);
        }
        let told = slot.told.get_or_insert_default();
        for (each, sent) in moves.iter().zip(sent) {
            told.size += sent.place.len();
            told.moves.push(Counted {
                version: sent.version,
                scheme: each.scheme,
                origin: each.origin,
                target: each.target,
                at: now,
            });
            told.outbox.push(sent);
            *self.changed.entry((each.scheme, each.origin, each.target, cause.is_some())).or_default() += 1;
        }
        if cause.is_some() {
            told.caused = Some(now);
        } else {
            self.late.extend(moves.iter().map(|_| now));
            self.by_time += moves.len();
        }
        told.ahead = found;
        self.brimming |= told.size > self.setup.outbox_bytes;
        self.is_told = true;
        self.stale.forget(slot.number);
        Ok(())
    }

    /// Takes records, until the group is full or one is not for it; returns how many, and why not more.
    fn all(
        &mut self,
        start: usize,
        end: usize,
        mut one: impl FnMut(&mut Self, usize) -> PyResult<Option<End>>,
    ) -> PyResult<(usize, Option<End>)> {
        for place in start..end {
            match one(self, place)? {
                None if self.brimming => return Ok((place + 1 - start, None)),
                None => {}
                ended => return Ok((place - start, ended)),
            }
        }
        Ok((end.saturating_sub(start), None))
    }

    /// Does what takes long while other threads run Python, if it needs none itself.
    fn apart<T: Send>(&mut self, py: Python, work: impl FnOnce(&mut Self) -> T + Send) -> T {
        if self.elsewhere.is_some() {
            return work(self);
        }
        py.detach(|| work(self))
    }

    /// Takes a record that is an object.
    fn object(&mut self, record: &Bound<PyAny>, given: &Given, counts: &mut Counts) -> PyResult<Option<End>> {
        let py = record.py();
        let value = record.getattr(intern!(py, "value"))?;
        let key = if self.setup.by_key { Some(record.getattr(intern!(py, "key"))?) } else { None };
        let raw = Raw {
            offset: record.getattr(intern!(py, "offset"))?.extract()?,
            key: key.as_ref().and_then(|key| key.cast::<PyBytes>().ok()).map(|key| key.as_bytes()),
            value: value.cast::<PyBytes>().ok().map(|value| value.as_bytes()),
        };
        let shared = self.states.clone();
        let mut states = locked(&shared);
        self.one(&mut states, &raw, given, counts)
    }

    fn one(&mut self, states: &mut Table, record: &Raw, given: &Given, counts: &mut Counts) -> PyResult<Option<End>> {
        let Some(data) = record.value else { return Ok(Some(End::Python)) };
        let Some(mut event) = decode(data, &self.settings, given.latest) else {
            return Ok(Some(End::Python));
        };
        let offset = record.offset;
        let name: Cow<str> = match event.name {
            Some(name) => Cow::Borrowed(name),
            None => {
                let name = format!("{}/{}/{}", given.topic, self.setup.partition, offset);
                event.fingerprint = digest(&name);
                Cow::Owned(name)
            }
        };
        if event.kind == "purchase" && event.order.is_none() {
            event.order = Some(event.fingerprint);
        }
        let customer = event.customer;
        let mut found = self.find(states, customer.as_bytes())?;
        match found {
            Found::Elsewhere => return Ok(Some(End::Python)),
            Found::Unknown
                if self.setup.by_murmur2
                    && partition_of(customer.as_bytes(), self.setup.partitions) != self.setup.partition =>
            {
                return Ok(Some(End::Python));
            }
            _ => {}
        }
        if self.setup.by_key && record.key != Some(customer.as_bytes()) {
            return Ok(Some(End::Python));
        }
        let room = self.setup.deadlines_at_once.saturating_sub(self.by_time);
        if room > 0 && self.deadlines.next() <= event.time {
            if let Passed::Python(due, number) = self.pass(states, event.time, room)? {
                return Ok(Some(End::Deadline(due, number)));
            }
            found = self.find(states, customer.as_bytes())?;
        }
        let known = match found {
            Found::Here(place) => Some(place),
            Found::Unknown => None,
            Found::Elsewhere => return Ok(Some(End::Python)),
        };
        let class = class_of(event.kind);
        if let Some(place) = known {
            if offset <= self.group.profile(place).offset(&given.topic) {
                self.clock = self.clock.max(event.time);
                counts.add(class, "replayed");
                return Ok(None);
            }
            if let Some((due, key)) = self.pass_own(states, place, event.time)? {
                return Ok(Some(End::Deadline(due, key)));
            }
        }
        let (taken, place) = self.take(states, customer, known, &event, &name, given.watched)?;
        match taken {
            Taken::Unsure => return Ok(Some(End::Python)),
            Taken::As(result) => {
                let (slot, profile) = self.group.both(place);
                if !self.is_told {
                    self.stale.note(slot.number, given.since, given.offset);
                }
                if result != "duplicate" {
                    profile.applied(&given.topic, offset, &mut self.positions);
                }
                counts.add(class, result);
            }
        }
        Ok(None)
    }
}

/// What is the same for all events of a fold.
pub struct Given {
    pub topic: String,
    pub latest: Option<i64>,
    pub since: f64,
    pub offset: i64,
    /// Whether forecasts are compared, and only those that moved are told.
    pub watched: bool,
}

/// Events by the class of their type and what became of them.
#[derive(Default)]
struct Counts(Vec<(String, &'static str, u64)>);

impl Counts {
    fn add(&mut self, class: &str, result: &'static str) {
        match self.0.iter_mut().find(|(known, what, _)| known == class && *what == result) {
            Some((_, _, count)) => *count += 1,
            None => self.0.push((class.to_owned(), result, 1)),
        }
    }
}

fn class_of(kind: &str) -> &str {
    match kind {
        "purchase" | "refund" | "profile" | "merge" | "erase" => kind,
        _ => "engagement",
    }
}

/// Reads a stored state into a profile, and what the census has of it if it is kept elsewhere.
fn read(
    plan: &Plan,
    elsewhere: &Option<Py<PyAny>>,
    states: &mut Table,
    customer: &[u8],
    number: Option<Number>,
    profile: &mut Profile,
    positions: &mut Positions,
) -> PyResult<Stored> {
    if let Some(elsewhere) = elsewhere {
        return Python::attach(|py| {
            let found = elsewhere.bind(py).call_method1(intern!(py, "get"), (PyBytes::new(py, customer),))?;
            if found.is_none() {
                return Ok(Stored::Unknown);
            }
            let data = found.cast::<PyBytes>()?.as_bytes();
            let counted = summary(data).map(|(_, worth, segments)| (worth, segments.to_vec()));
            Ok(match decode_state(plan, data, profile, positions) {
                Ok(()) => Stored::Read(states.named(customer), counted),
                Err(Unsure) => Stored::Unsure,
            })
        });
    }
    let Some((number, data)) = number.and_then(|number| Some((number, states.state(number)?))) else {
        return Ok(Stored::Unknown);
    };
    Ok(match decode_state(plan, data, profile, positions) {
        Ok(()) => Stored::Read(number, None),
        Err(Unsure) => Stored::Unsure,
    })
}

/// Appends a customer's assignment, by way of `data`.
fn push_current(
    plan: &Plan,
    customer: &str,
    profile: &Profile,
    ahead: &[Forecast],
    current: &mut Records,
    data: &mut Vec<u8>,
) {
    data.clear();
    put_current(data, plan, customer, profile, ahead);
    current.push(Some(customer.as_bytes()), Some(data), &[(b"content-type", b"application/json")]);
}

fn text(key: &[u8]) -> PyResult<&str> {
    std::str::from_utf8(key).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// What a customer is worth at `now`, where it is; nothing if that is not known.
pub fn worth(plan: &Plan, profile: &Profile, now: i64) -> Result<i64, Unsure> {
    let Some(worth) = &plan.worth else { return Ok(0) };
    let scope = Scope { plan, kept: &profile.kept, moving: &profile.moving, now };
    match alone(&scope, worth)? {
        Val::Null => Ok(0),
        value => rounded(value),
    }
}

/// What is found in the states that are taken over.
#[derive(Default)]
struct Loaded {
    customers: usize,
    gains: Gains,
    deadlines: Vec<(i64, Number)>,
}

impl Loaded {
    fn take(&mut self, data: &[u8], number: impl FnOnce() -> Number) -> PyResult<()> {
        let Some((wake, worth, segments)) = summary(data) else {
            return Err(PyValueError::new_err("a state is cut off"));
        };
        self.customers += 1;
        self.gains.add(segments, worth, 1);
        if wake != NEVER {
            self.deadlines.push((wake, number()));
        }
        Ok(())
    }
}

impl Partition {
    /// plan: MessagePack, see streamseg/formats/native_plan.py. states: States, or what has `get` and `items`.
    pub fn new(plan: &[u8], states: Bound<PyAny>, setup: Setup) -> PyResult<Self> {
        let plan = Plan::read(plan).map_err(PyValueError::new_err)?;
        let (states, elsewhere) = match states.cast::<States>() {
            Ok(here) => (here.get().shared(), None),
            Err(_) => (Arc::default(), Some(states.unbind())),
        };
        Ok(Partition {
            settings: Settings { currency: plan.currency.clone(), digits: plan.digits },
            plan: Arc::new(plan),
            states,
            elsewhere,
            group: Group::new(setup.rooms, setup.small),
            setup,
            clock: 0,
            observed_from: COMPLETE,
            epoch: 0,
            deadlines: Deadlines::default(),
            dirty: vec![],
            told: vec![],
            owned: HashSet::new(),
            stale: Stale::default(),
            spare: Profile::default(),
            changed: HashMap::new(),
            late: vec![],
            by_time: 0,
            brimming: false,
            is_told: false,
            foreseen: Default::default(),
            positions: Positions::default(),
            prepared: Prepared::new(),
            ahead: Ahead::default(),
            moves: vec![],
        })
    }

    pub fn next_deadline(&self) -> i64 {
        self.deadlines.next()
    }

    pub fn pending(&self) -> usize {
        self.deadlines.len()
    }

    /// Changes by time in the group.
    pub fn by_time(&self) -> usize {
        self.by_time
    }

    /// How many customers the group has to do with.
    pub fn touched(&self) -> usize {
        self.group.slots.len()
    }

    /// Takes over the states there are; returns how many, and worth and customers by segments.
    pub fn load<'py>(&mut self, py: Python<'py>) -> PyResult<(usize, Vec<Gain<'py>>)> {
        let mut loaded = Loaded::default();
        let mut table = locked(&self.states);
        if let Some(states) = &self.elsewhere {
            for item in states.bind(py).call_method0(intern!(py, "items"))?.try_iter()? {
                let (key, data) = item?.extract::<(Bound<PyBytes>, Bound<PyBytes>)>()?;
                loaded.take(data.as_bytes(), || table.named(key.as_bytes()))?;
            }
        } else {
            for (number, data) in table.all() {
                loaded.take(data, || number)?;
            }
        }
        self.deadlines.expect(&loaded.deadlines, &table);
        Ok((loaded.customers, loaded.gains.list(py)))
    }

    /// Gives up all customers.
    pub fn drop_all(&mut self) {
        if self.elsewhere.is_some() {
            self.states = Arc::default();
        }
        self.deadlines = Deadlines::default();
        self.group = Group::new(self.setup.rooms, self.setup.small);
        self.stale = Stale::default();
    }

    /// Folds events from `start` on, at most `limit`.
    pub fn fold(&mut self, records: &View, start: usize, limit: usize, given: &Given) -> PyResult<Folded> {
        let (end, mut counts) = (records.len().min(start + limit), Counts::default());
        let shared = self.states.clone();
        let mut states = locked(&shared);
        let (taken, ended) = self.all(start, end, |own, place| {
            if (place - start) % AHEAD == 0 {
                let next = (place..end.min(place + AHEAD)).filter_map(|place| records.raw(place).key);
                own.warm(&states, states.likely(next));
            }
            own.one(&mut states, &records.raw(place), given, &mut counts)
        })?;
        Ok(self.folded(&states, taken, ended, counts))
    }

    /// The same of records that are objects.
    pub fn fold_objects(
        &mut self,
        records: &Bound<PyAny>,
        start: usize,
        limit: usize,
        given: &Given,
    ) -> PyResult<Folded> {
        let (end, mut counts) = (records.len()?.min(start + limit), Counts::default());
        let (taken, ended) =
            self.all(start, end, |own, place| own.object(&records.get_item(place)?, given, &mut counts))?;
        let shared = self.states.clone();
        let folded = self.folded(&locked(&shared), taken, ended, counts);
        Ok(folded)
    }

    fn folded(&self, states: &Table, taken: usize, ended: Option<End>, counts: Counts) -> Folded {
        let (how, deadline) = match ended {
            Some(End::Python) => ("python", None),
            Some(End::Deadline(due, number)) => ("deadline", Some((due, states.key(number).to_vec()))),
            None if self.brimming && taken > 0 => ("brimming", None),
            None => ("events", None),
        };
        Folded { taken, how, deadline, counts }
    }

    /// Moves the clock to `now` and fires deadlines up to it, at most `limit`; "done", "left", or "deadline" with it.
    pub fn advance<'py>(
        &mut self,
        py: Python<'py>,
        now: i64,
        limit: Option<usize>,
    ) -> PyResult<(&'static str, Option<Due<'py>>)> {
        let shared = self.states.clone();
        let passed = self.apart(py, |own| own.pass(&mut locked(&shared), now, limit.unwrap_or(usize::MAX)))?;
        Ok(match passed {
            Passed::Done => ("done", None),
            Passed::Left => ("left", None),
            Passed::Python(due, number) => ("deadline", Some((due, self.key(py, number)))),
        })
    }

    /// Whether the group has to be written before anything more is folded; until the next `complete`.
    pub fn brimming(&self) -> bool {
        self.brimming
    }

    // For Python's lane

    /// Puts a deadline on the heap, unless an earlier one of this customer is there.
    pub fn queue(&mut self, customer: &[u8], wake: i64) {
        let mut states = locked(&self.states);
        let number = states.named(customer);
        self.deadlines.queue(number, wake, &states);
    }

    /// Leaves a customer to Python until the group is complete. If it was touched here, returns its state record
    /// without changes, whether that is new or changed, worth and segments that the census has, and what was told.
    #[allow(clippy::type_complexity)]
    pub fn release<'py>(&mut self, py: Python<'py>, customer: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let number = locked(&self.states).named(customer);
        if !self.owned.insert(number) {
            return Ok(None);
        }
        let Some(place) = self.group.get(customer) else { return Ok(None) };
        let mut data = vec![];
        let record = PyBytes::new(py, self.group.record(place, &self.plan, self.epoch, &mut data).0);
        self.group.forget(place);
        let slot = &mut self.group.slots[place];
        let counted = match &self.elsewhere {
            None => {
                let states = locked(&self.states);
                let counted = states.state(number).and_then(summary);
                counted.map(|(_, worth, segments)| (worth, PyBytes::new(py, segments)))
            }
            Some(_) => slot.counted.take().map(|(worth, segments)| (worth, PyBytes::new(py, &segments))),
        };
        let told = match slot.told.take() {
            None => py.None().into_bound(py),
            Some(told) => {
                let outbox = PyList::empty(py);
                for sent in &told.outbox {
                    outbox.append((sent.version, sent.at, PyBytes::new(py, sent.body(&self.group.bodies))))?;
                }
                let moves: Vec<_> = told
                    .moves
                    .iter()
                    .map(|each| (each.version, each.scheme, each.origin, each.target, each.at))
                    .collect();
                let ahead: Vec<_> = told.ahead.iter().map(|each| (each.at, each.target)).collect();
                (outbox, moves, ahead, told.caused, told.size).into_pyobject(py)?.into_any()
            }
        };
        Ok(Some((record, slot.dirty, counted, told).into_pyobject(py)?))
    }

    // Forecasts that are not told yet

    pub fn note_stale(&mut self, customer: &[u8], since: f64, offset: i64) {
        let number = locked(&self.states).named(customer);
        self.stale.note(number, since, offset);
    }

    pub fn is_stale(&self, customer: &[u8]) -> bool {
        locked(&self.states).number(customer).is_some_and(|number| self.stale.has(number))
    }

    pub fn drop_stale(&mut self, customer: &[u8]) {
        let number = locked(&self.states).number(customer);
        if let Some(number) = number {
            self.stale.forget(number);
        }
    }

    /// The lowest offset of the state of the customer that is not told for longest; None if there is none.
    pub fn unforeseen(&mut self) -> Option<i64> {
        self.stale.oldest().map(|mark| mark.offset)
    }

    /// How many are there to be shown, at most so many; who has been told of meanwhile may be among them.
    pub fn due(&self, before: f64, most: usize) -> usize {
        self.stale.due(before).min(most)
    }

    /// Shows customers who are not told of since `before` or longer, at most `limit`, the oldest first; they count as
    /// told.
    pub fn show_due(&mut self, before: f64, limit: usize, at_once: usize) -> PyResult<Showing> {
        let mut showing = self.showing(at_once, true);
        let shared = self.states.clone();
        let (mut states, mut key) = (locked(&shared), vec![]);
        for place in 0..limit {
            let Some(number) = self.stale.take(before) else { break };
            if place % AHEAD == 0 {
                self.warm(&states, iter::once(number).chain(self.stale.next().take(AHEAD - 1)));
            }
            key.clear();
            key.extend_from_slice(states.key(number));
            if !self.show_as_is(&mut states, Some(number), &key, &mut showing)? {
                self.let_go(&mut states, number);
            }
        }
        Ok(showing)
    }

    // Out

    /// Instants of the changes that time made since the last call.
    pub fn take_late(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.late)
    }

    /// Changes by scheme, origin, target (-1: none) and whether an event made them, since the last call.
    pub fn take_changed(&mut self) -> Vec<(usize, i32, i32, bool, u64)> {
        self.changed
            .drain()
            .map(|((scheme, origin, target, event), count)| (scheme, origin, target, event, count))
            .collect()
    }

    /// Room for what is to be appended.
    pub fn records(&self) -> Records {
        self.setup.records()
    }

    /// What the group comes to, and assignments that were told before, which come first. A piece for Redis is of
    /// `at_once` customers at most; a state above `large` bytes counts as large. `is_all`: nothing more is added to it.
    pub fn complete(&mut self, current: Records, large: usize, at_once: usize, is_all: bool) -> PyResult<Completed> {
        let shared = self.states.clone();
        let mut completed = self.completed(&mut locked(&shared), current, large, at_once)?;
        if is_all {
            let Completed { states, changes, current, .. } = &mut completed;
            [states, changes, current].into_iter().for_each(Records::finish);
        }
        Ok(completed)
    }

    /// Shows customers as they are; what is `told` goes to the topic of assignments, too. See `Showing`.
    pub fn refresh<'py>(
        &mut self,
        py: Python<'py>,
        customers: Vec<Bound<'py, PyBytes>>,
        told: bool,
        at_once: usize,
    ) -> PyResult<Py<PyAny>> {
        let shared = self.states.clone();
        let mut showing = self.showing(at_once, told);
        for customer in customers {
            let (key, mut states) = (customer.as_bytes(), locked(&shared));
            let number = states.number(key);
            self.show_as_is(&mut states, number, key, &mut showing)?;
        }
        showing.given(py)
    }
}

/// What a piece has, in how many elements, and of whom.
type Piece = (Vec<u8>, usize, Vec<String>);

/// What is shown of customers as they are.
pub struct Showing {
    /// Entries for Redis, one after another, and whose they are: at most `at_once` in a piece.
    pieces: Vec<Piece>,
    at_once: usize,
    /// Their assignments, if they are told.
    current: Option<Records>,
    /// Of whom Python has to tell.
    left: Vec<Vec<u8>>,
    found: Vec<Forecast>,
    data: Vec<u8>,
}

impl Showing {
    /// Adds an entry that `put` writes.
    fn add(&mut self, customer: &str, put: impl FnOnce(&mut Vec<u8>, &[Forecast]) -> usize) {
        if self.pieces.last().is_none_or(|(_, _, customers)| customers.len() == self.at_once) {
            self.pieces.push(Default::default());
        }
        if let Some((packed, elements, customers)) = self.pieces.last_mut() {
            customers.push(customer.to_owned());
            *elements += put(packed, &self.found);
        }
    }

    /// Pieces for Redis, assignments as Records, and whom Python has to tell of.
    pub fn given(self, py: Python) -> PyResult<Py<PyAny>> {
        let pieces = PyList::empty(py);
        for (data, elements, customers) in &self.pieces {
            pieces.append((PyBytes::new(py, data), elements, customers))?;
        }
        let left = PyList::new(py, self.left.iter().map(|key| PyBytes::new(py, key)))?;
        Ok((pieces, self.current, left).into_pyobject(py)?.into_any().unbind())
    }
}

impl Partition {
    fn showing(&self, at_once: usize, told: bool) -> Showing {
        let current = told.then(|| self.setup.records());
        Showing { pieces: vec![], at_once, current, left: vec![], found: vec![], data: vec![] }
    }

    /// Shows a customer as its state says, or leaves it to Python; false if nothing is known of it.
    fn show_as_is(
        &mut self,
        states: &mut Table,
        number: Option<Number>,
        key: &[u8],
        showing: &mut Showing,
    ) -> PyResult<bool> {
        let is_owned = number.is_some_and(|number| self.owned.contains(&number));
        if is_owned || self.group.get(key).is_some() {
            showing.left.push(key.to_vec());
            return Ok(true);
        }
        let Partition { plan, elsewhere, positions, ahead, spare: profile, epoch, setup, .. } = self;
        let sure = match read(plan, elsewhere, states, key, number, profile, positions)? {
            Stored::Unknown => return Ok(false),
            Stored::Unsure => Err(Unsure),
            Stored::Read(..) => forecast(plan, profile, profile.moving.at, ahead, &mut showing.found),
        };
        if sure.is_err() {
            showing.left.push(key.to_vec());
            return Ok(true);
        }
        let customer = text(key)?;
        if let Some(current) = &mut showing.current {
            push_current(plan, customer, profile, &showing.found, current, &mut showing.data);
        }
        showing.add(customer, |packed, ahead| {
            put_entry(packed, plan, customer, profile, ahead, &[], setup.partition, *epoch)
        });
        Ok(true)
    }

    fn completed(
        &mut self,
        here: &mut Table,
        mut current: Records,
        large: usize,
        at_once: usize,
    ) -> PyResult<Completed> {
        let mut changes = self.setup.records();
        let (mut caused, mut entries) = (Vec::<(Piece, Vec<i64>)>::new(), vec![]);
        let (mut data, mut record) = (Vec::with_capacity(1024), Vec::with_capacity(4096));
        let Partition { plan, group, positions, spare, epoch, setup, .. } = self;
        for &place in &self.told {
            let slot = &group.slots[place];
            if slot.void {
                continue;
            }
            let Some(told) = &slot.told else { continue };
            let shown = group.shown(place, plan, positions, spare);
            let profile = shown.map_err(|_| PyRuntimeError::new_err("a state is cut off"))?;
            let customer = text(&slot.key)?;
            push_current(plan, customer, profile, &told.ahead, &mut current, &mut data);
            let (ahead, moves) = (&told.ahead, &told.moves);
            let put = |packed: &mut Vec<u8>| {
                put_entry(packed, plan, customer, profile, ahead, moves, setup.partition, *epoch)
            };
            if let Some(at) = told.caused {
                if caused.last().is_none_or(|(_, instants)| instants.len() == at_once) {
                    caused.push(Default::default());
                }
                if let Some(((packed, elements, customers), instants)) = caused.last_mut() {
                    *elements += put(packed);
                    customers.push(customer.to_owned());
                    instants.push(at);
                }
            } else {
                let mut packed = vec![];
                let elements = put(&mut packed);
                entries.push((packed, elements, customer.to_owned()));
            }
            for sent in &told.outbox {
                push_change(&mut changes, &slot.key, sent, &group.bodies, &setup.source, &mut data);
            }
        }
        let mut states = setup.records();
        let mut kept = vec![];
        let (mut gains, mut new, mut larger) = (Gains::default(), 0, 0);
        for (turn, &place) in self.dirty.iter().enumerate() {
            if turn % AHEAD == 0 {
                here.warm(self.dirty[turn..].iter().take(AHEAD).map(|&place| group.slots[place].number));
            }
            let slot = &group.slots[place];
            if slot.void {
                continue;
            }
            let (data, head) = group.record(place, plan, *epoch, &mut data);
            let size = match slot.told.as_ref().filter(|told| !told.outbox.is_empty()) {
                Some(told) => {
                    record.clear();
                    with_outbox(data, head, &told.outbox, &group.bodies, &mut record);
                    states.push(Some(&slot.key), Some(&record), &[]);
                    record.len()
                }
                None => {
                    states.push(Some(&slot.key), Some(data), &[]);
                    data.len()
                }
            };
            larger += usize::from(size > large);
            let Some((_, worth, segments)) = summary(data) else { continue };
            let is_known = if self.elsewhere.is_some() {
                if let Some((was, before)) = &slot.counted {
                    gains.change(before, *was, segments, worth);
                }
                kept.push((slot.key.clone(), data.to_vec()));
                slot.counted.is_some()
            } else {
                let known = here.state(slot.number).and_then(summary);
                if let Some((_, was, before)) = known {
                    gains.change(before, was, segments, worth);
                }
                let is_known = known.is_some();
                here.keep(slot.number, data);
                is_known
            };
            if !is_known {
                new += 1;
                gains.add(segments, worth, 1);
            }
        }
        self.renew(here);
        Ok(Completed { states, changes, current, caused, entries, kept, gains, new, large: larger })
    }

    /// Begins the next group.
    fn renew(&mut self, states: &mut Table) {
        for number in self.group.slots.iter().map(|slot| slot.number).chain(self.owned.iter().copied()) {
            self.let_go(states, number);
        }
        self.group.renew();
        self.dirty.clear();
        self.told.clear();
        self.owned.clear();
        self.by_time = 0;
        self.brimming = false;
    }
}
