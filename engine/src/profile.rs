//! All that is kept of one customer, and how an event changes it: streamseg/core/profile.py, tile.py and ledger.py.

use std::sync::Arc;

use crate::event::{self, Event, Fingerprint, FINGERPRINT};
use crate::plan::{Plan, Series, Tap, TapSeries, What, Window};
use crate::time::NEVER;
use crate::value::{condition, property, Happened, Val};
use crate::wire::{Scalar, BOUND, NONE};
use crate::Unsure;

pub const UNSET: i32 = -1;
const CANCELLED: i64 = -1;
/// An amount or a number above this is left to Python, so that sums stay far from overflow.
const MAX_NUMBER: i64 = 1_000_000_000_000;

/// The tiles of one series, and a list for each column.
#[derive(Clone, Default)]
pub struct Rows {
    pub tiles: Vec<i64>,
    pub columns: Vec<Vec<i64>>,
}

#[derive(Clone)]
pub struct Order {
    pub id: Fingerprint,
    pub time: i64,
    pub left: i64,
    pub taps: u64,
    pub values: Vec<i64>,
}

#[derive(Clone)]
pub struct Waiting {
    pub id: Fingerprint,
    pub refunds: Vec<(i64, i64)>,
}

/// What only events change.
#[derive(Clone, Default)]
pub struct Kept {
    pub recent: Vec<u8>,
    pub orders: Vec<Order>,
    pub waiting: Vec<Waiting>,
    pub rows: Vec<Rows>,
    pub marks: Vec<i64>,
    pub latest: Vec<Scalar>,
    pub attributes: Vec<Scalar>,
    pub attribute_times: Vec<i64>,
}

/// What time changes, too: a copy of it can be moved on in time.
#[derive(Clone, Default)]
pub struct Moving {
    pub at: i64,
    pub segments: Vec<i32>,
    pub entered: Vec<i64>,
    pub positions: Vec<usize>,
    pub totals: Vec<i64>,
    pub expires: i64,
}

#[derive(Clone, Default)]
pub struct Profile {
    pub kept: Kept,
    pub moving: Moving,
    pub version: u32,
    pub wake: i64,
    pub worth: i64,
    /// The offset of the last event applied, by where events come from.
    pub offsets: Vec<(Arc<str>, i64)>,
}

/// Names of where events come from: there are few, and every customer has some.
#[derive(Default)]
pub struct Positions(Vec<Arc<str>>);

impl Positions {
    const MOST: usize = 1_024;

    pub fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        if self.0.len() < Self::MOST {
            self.0.push(new.clone());
        }
        new
    }
}

impl Profile {
    /// Makes it that of a customer of whom nothing is known.
    pub fn renew(&mut self, plan: &Plan) {
        let kept = &mut self.kept;
        kept.recent.clear();
        kept.orders.clear();
        kept.waiting.clear();
        kept.rows.resize_with(plan.series.len(), Rows::default);
        for (rows, series) in kept.rows.iter_mut().zip(&plan.series) {
            rows.tiles.clear();
            rows.columns.resize_with(series.sums + series.extremes.len(), Vec::new);
            rows.columns.iter_mut().for_each(Vec::clear);
        }
        refill(&mut kept.marks, plan.marks, NONE);
        refill(&mut kept.latest, plan.latest, Scalar::Null);
        refill(&mut kept.attributes, plan.attributes.len(), Scalar::Null);
        refill(&mut kept.attribute_times, plan.attributes.len(), NONE);
        let moving = &mut self.moving;
        moving.at = 0;
        refill(&mut moving.segments, plan.schemes.len(), UNSET);
        refill(&mut moving.entered, plan.schemes.len(), 0);
        refill(&mut moving.positions, plan.windows.len(), 0);
        moving.totals.clear();
        moving.totals.extend(plan.totals.iter().map(|total| total.unwrap_or(NONE)));
        moving.expires = NEVER;
        self.version = 0;
        self.wake = NEVER;
        self.worth = 0;
        self.offsets.clear();
    }

    /// Finds where its windows are at its instant, and when the next tile leaves one.
    pub fn settle(&mut self, plan: &Plan) {
        let moving = &mut self.moving;
        moving.expires = NEVER;
        for (series, rows) in plan.series.iter().zip(&self.kept.rows) {
            for &index in &series.windows {
                let window = &plan.windows[index];
                let first = (moving.at - window.length).div_euclid(window.tile);
                let position = rows.tiles.partition_point(|&tile| tile < first);
                moving.positions[index] = position;
                if let Some(tile) = rows.tiles.get(position) {
                    moving.expires = moving.expires.min((tile + 1) * window.tile + window.length);
                }
            }
        }
    }

    /// How many numbers it has, about.
    pub fn numbers(&self) -> usize {
        let rows = self.kept.rows.iter().map(|rows| rows.tiles.len() * (1 + rows.columns.len()));
        rows.sum::<usize>() + 4 * self.kept.orders.len()
    }

    pub fn offset(&self, position: &str) -> i64 {
        self.offsets.iter().find(|(name, _)| &**name == position).map_or(-1, |(_, offset)| *offset)
    }

    pub fn applied(&mut self, position: &str, offset: i64, positions: &mut Positions) {
        match self.offsets.iter_mut().find(|(name, _)| &**name == position) {
            Some((_, known)) => *known = offset,
            None => self.offsets.push((positions.name(position), offset)),
        }
    }
}

fn refill<T: Clone>(list: &mut Vec<T>, length: usize, value: T) {
    list.clear();
    list.resize(length, value);
}

/// Lets go of the tiles that have left their windows at `now`.
#[inline]
pub fn advance(plan: &Plan, rows: &[Rows], moving: &mut Moving, now: i64) {
    moving.at = now;
    if now >= moving.expires {
        let mut following = NEVER;
        for (series, own) in plan.series.iter().zip(rows) {
            following = following.min(expire(plan, series, own, moving, now));
        }
        moving.expires = following;
    }
}

/// The same; tiles that have left every window are dropped.
#[inline]
pub fn advance_and_drop(plan: &Plan, profile: &mut Profile, now: i64) {
    let (rows, moving) = (&mut profile.kept.rows, &mut profile.moving);
    if now < moving.expires {
        moving.at = now;
        return;
    }
    advance(plan, rows, moving, now);
    for (series, own) in plan.series.iter().zip(rows) {
        compact(plan, series, own, moving);
    }
}

fn expire(plan: &Plan, series: &Series, rows: &Rows, moving: &mut Moving, now: i64) -> i64 {
    let mut following = NEVER;
    for &index in &series.windows {
        let window = &plan.windows[index];
        let start = moving.positions[index];
        let first = (now - window.length).div_euclid(window.tile);
        let mut position = start;
        while position < rows.tiles.len() && rows.tiles[position] < first {
            position += 1;
        }
        if position != start {
            moving.positions[index] = position;
            let_go(window, series.sums, rows, &mut moving.totals, start, position);
        }
        if position < rows.tiles.len() {
            following = following.min((rows.tiles[position] + 1) * window.tile + window.length);
        }
    }
    following
}

fn let_go(window: &Window, sums: usize, rows: &Rows, totals: &mut [i64], start: usize, position: usize) {
    for &(column, slot) in &window.sums {
        totals[slot] -= rows.columns[column][start..position].iter().sum::<i64>();
    }
    for &(column, slot, greatest) in &window.extremes {
        let values = &rows.columns[sums + column];
        if totals[slot] != NONE && values[start..position].contains(&totals[slot]) {
            totals[slot] = values[position..].iter().fold(NONE, |known, &value| extreme(known, value, greatest));
        }
    }
}

fn compact(plan: &Plan, series: &Series, rows: &mut Rows, moving: &mut Moving) {
    let Some(&longest) = series.windows.last() else { return };
    let gone = moving.positions[longest];
    if gone > plan.kept_before_window {
        rows.tiles.drain(..gone);
        for column in &mut rows.columns {
            column.drain(..gone);
        }
        for &window in &series.windows {
            moving.positions[window] -= gone;
        }
    }
}

#[inline]
fn extreme(known: i64, value: i64, greatest: bool) -> i64 {
    match (known, value) {
        (_, NONE) => known,
        (NONE, _) => value,
        _ if greatest => known.max(value),
        _ => known.min(value),
    }
}

/// Adds to a tile and to the totals of its windows; returns when the tile leaves the first window it is in.
#[allow(clippy::too_many_arguments)]
fn add(
    plan: &Plan,
    series: &Series,
    rows: &mut Rows,
    moving: &mut Moving,
    tile: i64,
    sums: impl Fn(usize) -> i64,
    extremes: impl Fn(usize) -> i64,
    now: i64,
) -> i64 {
    let Some(&longest) = series.windows.last() else { return NEVER };
    if now >= (tile + 1) * series.tile + plan.windows[longest].length {
        return NEVER;
    }
    let row = row_of(plan, series, rows, &mut moving.positions, tile, now);
    for column in 0..series.sums {
        rows.columns[column][row] += sums(column);
    }
    for (offset, &greatest) in series.extremes.iter().enumerate() {
        let place = &mut rows.columns[series.sums + offset][row];
        *place = extreme(*place, extremes(offset), greatest);
    }
    let mut leaves = NEVER;
    for &index in &series.windows {
        let window = &plan.windows[index];
        let end = (tile + 1) * window.tile + window.length;
        if now < end {
            leaves = leaves.min(end);
            for &(column, slot) in &window.sums {
                moving.totals[slot] += sums(column);
            }
            for &(column, slot, greatest) in &window.extremes {
                moving.totals[slot] = extreme(moving.totals[slot], extremes(column), greatest);
            }
        }
    }
    leaves
}

fn row_of(plan: &Plan, series: &Series, rows: &mut Rows, positions: &mut [usize], tile: i64, now: i64) -> usize {
    let mut row = rows.tiles.len();
    match rows.tiles.last() {
        Some(&last) if last == tile => return row - 1,
        Some(&last) if last > tile => match rows.tiles.binary_search(&tile) {
            Ok(found) => return found,
            Err(place) => row = place,
        },
        _ => {}
    }
    rows.tiles.insert(row, tile);
    for (place, column) in rows.columns.iter_mut().enumerate() {
        column.insert(row, if place < series.sums { 0 } else { NONE });
    }
    for &index in &series.windows {
        let window = &plan.windows[index];
        let position = &mut positions[index];
        // A position stays on the first tile that is inside: a late one may come in before it, or have left already.
        if *position > row || (*position == row && now >= (tile + 1) * window.tile + window.length) {
            *position += 1;
        }
    }
    row
}

/// What was found out about an event before it changes anything.
pub struct Prepared {
    /// A bit for each filtered tap that it passes.
    passed: u64,
    /// For each tap it goes through: whether it passes, and the numbers of its fields from this place of `values` on.
    taps: Vec<(usize, usize)>,
    values: Vec<i64>,
    reversible: Vec<i64>,
    latest: Vec<(usize, Scalar)>,
    attributes: Vec<(usize, Scalar)>,
    amount: i64,
}

impl Prepared {
    pub fn new() -> Self {
        Prepared {
            passed: 0,
            taps: vec![],
            values: vec![],
            reversible: vec![],
            latest: vec![],
            attributes: vec![],
            amount: NONE,
        }
    }
}

fn number(event: &Event, name: &str, amount: i64) -> Result<i64, Unsure> {
    if name == "amount" {
        return Ok(amount);
    }
    match property(event.props, name)? {
        Val::Int(number) if number.unsigned_abs() <= MAX_NUMBER as u64 => Ok(number),
        Val::Int(_) => Err(Unsure),
        _ => Ok(NONE),
    }
}

fn latest_value(plan: &Plan, event: &Event, name: &str, amount: i64) -> Result<Scalar, Unsure> {
    if name == "amount" {
        return Ok(if amount == NONE { Scalar::Null } else { Scalar::Int(amount) });
    }
    Ok(match property(event.props, name)? {
        Val::Bool(truth) => Scalar::Bool(truth),
        Val::Int(number) if number.unsigned_abs() <= BOUND as u64 => Scalar::Int(number),
        Val::Text(text) if text.len() <= plan.max_text => Scalar::Text(text.into()),
        Val::Null => Scalar::Null,
        _ => return Err(Unsure),
    })
}

fn bounded(plan: &Plan, value: event::Value) -> Result<Scalar, Unsure> {
    use event::Value;
    Ok(match value {
        Value::Null => Scalar::Null,
        Value::True => Scalar::Bool(true),
        Value::False => Scalar::Bool(false),
        Value::Int(number) if number.unsigned_abs() <= BOUND as u64 => Scalar::Int(number),
        Value::Text(text) if text.len() <= plan.max_text => Scalar::Text(text.into()),
        _ => return Err(Unsure),
    })
}

/// Whether the event's id is among the latest, or its order is in the ledger already.
#[inline]
pub fn is_duplicate(plan: &Plan, kept: &Kept, event: &Event, now: i64) -> bool {
    let [a, b, c, d, e, f] = event.fingerprint;
    kept.recent.chunks_exact(FINGERPRINT).any(|each| each[..4] == [a, b, c, d] && each[4..] == [e, f])
        || (event.kind == "purchase" && known(plan, kept, event.order.unwrap_or_default(), now).is_some())
}

fn known(plan: &Plan, kept: &Kept, order: Fingerprint, now: i64) -> Option<usize> {
    let place = kept.orders.iter().position(|each| each.id == order)?;
    (now < kept.orders[place].time + plan.refund_window).then_some(place)
}

/// Whether an order is still there after `forget`: of too many, the oldest is forgotten early.
fn stays(plan: &Plan, kept: &Kept, place: usize, now: i64) -> bool {
    let gone = kept.orders.iter().take_while(|order| now >= order.time + plan.refund_window).count();
    place > gone || kept.orders.len() - gone <= plan.max_orders
}

/// Finds out all that may be unsure; changes nothing.
pub fn prepare(plan: &Plan, kept: &Kept, event: &Event, now: i64, prepared: &mut Prepared) -> Result<(), Unsure> {
    let amount = event.amount.unwrap_or(NONE);
    if amount > MAX_NUMBER {
        return Err(Unsure);
    }
    prepared.amount = amount;
    if event.kind == "refund" && amount == NONE {
        if let Some(place) =
            known(plan, kept, event.order.unwrap_or_default(), now).filter(|&place| stays(plan, kept, place, now))
        {
            prepared.amount = kept.orders[place].left.max(0);
        }
    }
    prepared.passed = 0;
    prepared.taps.clear();
    prepared.values.clear();
    prepared.reversible.clear();
    prepared.latest.clear();
    prepared.attributes.clear();
    let happened = Happened { props: event.props, amount: prepared.amount };
    for &index in plan.taps_of(event.kind) {
        let tap = &plan.taps[index];
        if let Some(filter) = &tap.filter {
            if !condition(filter, &happened)? {
                continue;
            }
            prepared.passed |= tap.bit;
        }
        prepared.taps.push((index, prepared.values.len()));
        for name in &tap.fields {
            prepared.values.push(number(event, name, prepared.amount)?);
        }
        for (name, place) in &tap.latest {
            prepared.latest.push((*place, latest_value(plan, event, name, prepared.amount)?));
        }
    }
    if event.kind == "purchase" {
        for name in &plan.reversible {
            prepared.reversible.push(number(event, name, prepared.amount)?);
        }
    }
    if let Some(given) = event.attributes {
        for (place, name) in plan.attributes.iter().enumerate() {
            if let Some(value) = event::field(given, name) {
                prepared.attributes.push((place, bounded(plan, value)?));
            }
        }
    }
    Ok(())
}

/// Whether what is ahead of a customer surely stays as it is with a prepared event: all totals that it adds to stay below
/// what any rule looks for, now and ever after if no other event comes.
pub fn is_slight(plan: &Plan, profile: &Profile, event: &Event, prepared: &Prepared) -> bool {
    event.order.is_none()
        && prepared.attributes.is_empty()
        && prepared.taps.iter().all(|&(index, start)| {
            let tap = &plan.taps[index];
            let values = &prepared.values[start..start + tap.fields.len()];
            tap.added.as_ref().is_some_and(|all| {
                all.iter().all(|added| {
                    let value = share(added.what, values);
                    value >= 0 && profile.moving.totals[added.slot].saturating_add(value) < added.lowest
                })
            })
        })
}

/// Takes a prepared event in. The profile was moved to `now`. Returns whether a refund found no order.
pub fn apply(plan: &Plan, profile: &mut Profile, event: &Event, now: i64, prepared: &Prepared) -> bool {
    let (kept, moving) = (&mut profile.kept, &mut profile.moving);
    kept.recent.extend_from_slice(&event.fingerprint);
    if kept.recent.len() > plan.remembered_bytes {
        let gone = kept.recent.len() - plan.remembered_bytes;
        kept.recent.drain(..gone);
    }
    let mut unmatched = false;
    if event.order.is_some() {
        forget(plan, kept, now);
    }
    let order = event.order.unwrap_or_default();
    if event.kind == "refund" {
        match known(plan, kept, order, now) {
            None => {
                unmatched = true;
                wait(plan, kept, order, event, now);
            }
            Some(place) => {
                let mut entry = kept.orders[place].clone();
                take_back(plan, kept, moving, &mut entry, prepared.amount, now);
                kept.orders[place] = entry;
            }
        }
    }
    for &(index, start) in &prepared.taps {
        feed(plan, kept, moving, &plan.taps[index], event.time, prepared, start, now);
    }
    if event.kind == "purchase" {
        remember(plan, kept, moving, order, event.time, prepared, now);
    }
    for (place, value) in &prepared.attributes {
        let known = &mut kept.attribute_times[*place];
        if *known == NONE || event.time >= *known {
            *known = event.time;
            kept.attributes[*place] = value.clone();
        }
    }
    unmatched
}

#[allow(clippy::too_many_arguments)]
fn feed(
    plan: &Plan,
    kept: &mut Kept,
    moving: &mut Moving,
    tap: &Tap,
    time: i64,
    prepared: &Prepared,
    start: usize,
    now: i64,
) {
    if let Some(mark) = tap.last_mark {
        if kept.marks[mark] == NONE || time >= kept.marks[mark] {
            kept.marks[mark] = time;
            for (_, place) in &tap.latest {
                if let Some((_, value)) = prepared.latest.iter().find(|(known, _)| known == place) {
                    kept.latest[*place] = value.clone();
                }
            }
        }
    }
    if let Some(mark) = tap.first_mark {
        if kept.marks[mark] == NONE || time < kept.marks[mark] {
            kept.marks[mark] = time;
        }
    }
    if !tap.counts {
        return;
    }
    let values = &prepared.values[start..start + tap.fields.len()];
    for one in &tap.series {
        let series = &plan.series[one.series];
        let leaves = add(
            plan,
            series,
            &mut kept.rows[one.series],
            moving,
            time.div_euclid(series.tile),
            |column| share(one.sums[column], values),
            |column| values[one.extremes[column]],
            now,
        );
        moving.expires = moving.expires.min(leaves);
    }
    for &(what, place, slot) in &tap.forever_sums {
        moving.totals[slot] += share((what, place), values);
    }
    for &(place, slot, greatest) in &tap.forever_extremes {
        moving.totals[slot] = extreme(moving.totals[slot], values[place], greatest);
    }
}

/// What one event adds to a summed column.
#[inline]
fn share((what, place): (What, usize), values: &[i64]) -> i64 {
    match what {
        What::Count => 1,
        What::Numbers => i64::from(values[place] != NONE),
        What::Sum if values[place] == NONE => 0,
        What::Sum => values[place],
    }
}

/// Drops from the front what is no longer remembered.
fn forget(plan: &Plan, kept: &mut Kept, now: i64) {
    let gone = kept.orders.iter().take_while(|order| now >= order.time + plan.refund_window).count();
    kept.orders.drain(..gone);
    let gone = kept
        .waiting
        .iter()
        .take_while(|waiting| {
            let latest = waiting.refunds.iter().map(|refund| refund.0).max().unwrap_or(0);
            now >= latest + plan.refund_window
        })
        .count();
    kept.waiting.drain(..gone);
    if kept.orders.len() > plan.max_orders {
        kept.orders.remove(0);
    }
    if kept.waiting.len() > plan.max_waiting_orders {
        kept.waiting.remove(0);
    }
}

fn wait(plan: &Plan, kept: &mut Kept, order: Fingerprint, event: &Event, now: i64) {
    if now < event.time + plan.refund_window {
        let place = kept.waiting.iter().position(|each| each.id == order).unwrap_or_else(|| {
            kept.waiting.push(Waiting { id: order, refunds: vec![] });
            kept.waiting.len() - 1
        });
        let refunds = &mut kept.waiting[place].refunds;
        if refunds.len() < plan.max_waiting {
            refunds.push((event.time, event.amount.unwrap_or(NONE)));
        }
    }
}

/// Puts a purchase into the ledger and applies the refunds that have waited for it.
fn remember(
    plan: &Plan,
    kept: &mut Kept,
    moving: &mut Moving,
    id: Fingerprint,
    time: i64,
    prepared: &Prepared,
    now: i64,
) {
    let mut entry =
        Order { id, time, left: prepared.amount, taps: prepared.passed, values: prepared.reversible.clone() };
    if let Some(place) = kept.waiting.iter().position(|each| each.id == id) {
        let waiting = kept.waiting.remove(place);
        for (at, amount) in waiting.refunds {
            if now < at + plan.refund_window {
                take_back(plan, kept, moving, &mut entry, amount, now);
            }
        }
    }
    if now < time + plan.refund_window {
        kept.orders.retain(|each| each.id != id);
        kept.orders.push(entry);
    }
}

/// Lowers the sums of the tile an order stands in, and its counts at zero left.
fn take_back(plan: &Plan, kept: &mut Kept, moving: &mut Moving, entry: &mut Order, amount: i64, now: i64) {
    if entry.left == CANCELLED {
        return;
    }
    let taken = if amount == NONE { entry.left } else { entry.left.min(amount) };
    let left = entry.left - taken;
    let emptied = left == 0;
    entry.left = if emptied { CANCELLED } else { left };
    if taken == 0 && !emptied {
        return;
    }
    for &index in plan.taps_of("purchase") {
        let tap = &plan.taps[index];
        if tap.filter.is_some() && entry.taps & tap.bit == 0 {
            continue;
        }
        for one in &tap.series {
            take_back_tile(plan, kept, moving, tap, one, entry, (taken, emptied), now);
        }
        for &(what, place, slot) in &tap.forever_sums {
            moving.totals[slot] -= returned(plan, tap, what, place, entry, taken, emptied);
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn take_back_tile(
    plan: &Plan,
    kept: &mut Kept,
    moving: &mut Moving,
    tap: &Tap,
    one: &TapSeries,
    entry: &Order,
    (taken, emptied): (i64, bool),
    now: i64,
) {
    let series = &plan.series[one.series];
    add(
        plan,
        series,
        &mut kept.rows[one.series],
        moving,
        entry.time.div_euclid(series.tile),
        |column| {
            let (what, place) = one.sums[column];
            -returned(plan, tap, what, place, entry, taken, emptied)
        },
        |_| NONE,
        now,
    );
}

/// What a refund takes out of a summed column.
fn returned(plan: &Plan, tap: &Tap, what: What, place: usize, entry: &Order, taken: i64, emptied: bool) -> i64 {
    if what == What::Count {
        return i64::from(emptied);
    }
    let name = &tap.fields[place];
    if name == "amount" {
        return if what == What::Numbers { i64::from(emptied) } else { taken };
    }
    let value = plan.reversible.iter().position(|each| each == name).map_or(NONE, |index| entry.values[index]);
    match (value, emptied, what) {
        (NONE, _, _) | (_, false, _) => 0,
        (_, _, What::Numbers) => 1,
        _ => value,
    }
}
