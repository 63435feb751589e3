//! State records: streamseg/formats/state.py.

use crate::old_state;
use crate::plan::Plan;
use crate::profile::{Order, Positions, Profile, Rows, Waiting, UNSET};
use crate::time::NEVER;
use crate::wire::{be, put_array, put_bytes, put_int, put_map, put_optional, put_scalar, put_text, Reader, NONE};
use crate::Unsure;

const FORMAT: u8 = 3;
/// A body of an earlier format.
const OLD_BODY: u8 = 2;
const MARK: usize = 5;
const AT: usize = 9;
const WAKE: usize = 15;
const WORTH: usize = 21;
const HEADER: usize = 30;
const NO_SEGMENT: u8 = 255;
const NO_WAKE: i64 = (1 << 48) - 1;

/// An instant, in six bytes.
fn instant(data: &[u8], at: usize) -> i64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&data[at..at + 6]);
    i64::from_be_bytes(bytes)
}

/// Of a state: when time may change it, its worth, its segments.
pub fn summary(data: &[u8]) -> Option<(i64, i64, &[u8])> {
    let schemes = *data.get(HEADER - 1)? as usize;
    let segments = data.get(HEADER..HEADER + schemes)?;
    let wake = instant(data, WAKE);
    Some((if wake == NO_WAKE { NEVER } else { wake }, i64::from_be_bytes(be(data, WORTH)), segments))
}

/// Reads a state without an outbox into a profile.
pub fn decode(plan: &Plan, data: &[u8], profile: &mut Profile, positions: &mut Positions) -> Result<(), Unsure> {
    let mut reader = read_head(plan, data, profile)?;
    match data[0] {
        FORMAT if be(data, MARK) == plan.mark => read_body(plan, &mut reader, profile, positions)?,
        OLD_BODY => {
            profile.version = u32::from_be_bytes(be(data, MARK));
            old_state::read_body(plan, &mut reader, profile, positions)?;
        }
        _ => return Err(Unsure),
    }
    if !reader.is_empty() {
        return Err(Unsure);
    }
    profile.settle(plan);
    Ok(())
}

/// Reads of a state of `encode` what is shown of a customer, and no more.
pub fn decode_shown(plan: &Plan, data: &[u8], profile: &mut Profile, positions: &mut Positions) -> Result<(), Unsure> {
    let mut reader = read_head(plan, data, profile)?;
    read_front(plan, &mut reader, profile, positions)
}

fn read_head<'a>(plan: &Plan, data: &'a [u8], profile: &mut Profile) -> Result<Reader<'a>, Unsure> {
    let (wake, worth, segments) = summary(data).ok_or(Unsure)?;
    let body = HEADER + segments.len() + 1;
    if data.len() <= body || data[body - 1] != 0 || segments.len() != plan.schemes.len() {
        return Err(Unsure);
    }
    profile.renew(plan);
    profile.moving.at = instant(data, AT);
    profile.wake = wake;
    profile.worth = worth;
    for (place, &segment) in segments.iter().enumerate() {
        if segment != NO_SEGMENT && segment as usize >= plan.schemes[place].names.len() {
            return Err(Unsure);
        }
        profile.moving.segments[place] = if segment == NO_SEGMENT { UNSET } else { segment as i32 };
    }
    Ok(Reader::new(&data[body..]))
}

fn read_front(
    plan: &Plan,
    reader: &mut Reader,
    profile: &mut Profile,
    positions: &mut Positions,
) -> Result<(), Unsure> {
    reader.array_of(9)?;
    profile.version = u32::try_from(reader.int()?).map_err(|_| Unsure)?;
    for _ in 0..reader.map()? {
        let name = reader.text()?;
        profile.offsets.push((positions.name(name), reader.int()?));
    }
    let moving = &mut profile.moving;
    reader.array_of(plan.schemes.len() + plan.marks + plan.attributes.len())?;
    for entered in &mut moving.entered {
        *entered = moving.at - reader.bounded()?;
    }
    Ok(())
}

fn read_body(plan: &Plan, reader: &mut Reader, profile: &mut Profile, positions: &mut Positions) -> Result<(), Unsure> {
    read_front(plan, reader, profile, positions)?;
    let (kept, moving) = (&mut profile.kept, &mut profile.moving);
    let at = moving.at;
    for time in kept.marks.iter_mut().chain(&mut kept.attribute_times) {
        *time = before(at, reader.optional()?);
    }
    reader.array_of(plan.totals.len() + plan.latest + plan.attributes.len())?;
    for total in &mut moving.totals {
        *total = reader.optional()?;
    }
    for value in kept.latest.iter_mut().chain(&mut kept.attributes) {
        *value = reader.scalar()?;
    }
    kept.recent.extend_from_slice(reader.bytes()?);
    read_orders(plan, reader, at, &mut kept.orders)?;
    for _ in 0..reader.map()? {
        let waiting = read_waiting(reader, at)?;
        kept.waiting.push(waiting);
    }
    reader.array_of(plan.series.len())?;
    for (series, rows) in plan.series.iter().zip(&mut kept.rows) {
        read_rows(reader, at.div_euclid(series.tile), rows)?;
    }
    reader.array_of(0) // trackers: not of the subset
}

/// A time by how long before `at` it is, and the other way round.
#[inline]
fn before(at: i64, time: i64) -> i64 {
    if time == NONE {
        NONE
    } else {
        at - time
    }
}

fn id<const N: usize>(reader: &mut Reader) -> Result<[u8; N], Unsure> {
    reader.bytes()?.try_into().map_err(|_| Unsure)
}

fn read_orders(plan: &Plan, reader: &mut Reader, at: i64, orders: &mut Vec<Order>) -> Result<(), Unsure> {
    let (length, width) = (reader.array()?, order_width(plan));
    if length % width != 0 {
        return Err(Unsure);
    }
    for _ in 0..length / width {
        let id = id(reader)?;
        let (time, left, taps) = (at - reader.bounded()?, reader.bounded()?, reader.int()? as u64);
        let mut values = vec![];
        if !plan.reversible.is_empty() {
            reader.array_of(plan.reversible.len())?;
            for _ in &plan.reversible {
                values.push(reader.optional()?);
            }
        }
        orders.push(Order { id, time, left, taps, values });
    }
    Ok(())
}

/// Parts of an order in a list of them.
fn order_width(plan: &Plan) -> usize {
    if plan.reversible.is_empty() {
        4
    } else {
        5
    }
}

fn read_waiting(reader: &mut Reader, at: i64) -> Result<Waiting, Unsure> {
    let id = id(reader)?;
    let mut refunds = vec![];
    for _ in 0..reader.array()? {
        reader.array_of(2)?;
        refunds.push((at - reader.bounded()?, reader.optional()?));
    }
    Ok(Waiting { id, refunds })
}

/// Rows column after column; `now` is the tile of now.
fn read_rows(reader: &mut Reader, now: i64, rows: &mut Rows) -> Result<(), Unsure> {
    let (length, width) = (reader.array()?, 1 + rows.columns.len());
    if length % width != 0 {
        return Err(Unsure);
    }
    for _ in 0..length / width {
        rows.tiles.push(now - reader.bounded()?);
    }
    for column in &mut rows.columns {
        for _ in 0..length / width {
            column.push(reader.optional()?);
        }
    }
    Ok(())
}

/// Appends a state record without changes: what is kept in memory. Gives how long its head is, after which an outbox goes.
pub fn encode(plan: &Plan, profile: &Profile, epoch: u32, out: &mut Vec<u8>) -> usize {
    let (moving, start) = (&profile.moving, out.len());
    out.push(FORMAT);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(&plan.mark);
    out.extend_from_slice(&moving.at.to_be_bytes()[2..]);
    out.extend_from_slice(&profile.wake.min(NO_WAKE).to_be_bytes()[2..]);
    out.extend_from_slice(&profile.worth.to_be_bytes());
    out.push(moving.segments.len() as u8);
    out.extend(moving.segments.iter().map(|&segment| if segment == UNSET { NO_SEGMENT } else { segment as u8 }));
    let head = out.len() - start;
    out.push(0);
    put_body(plan, profile, out);
    head
}

fn put_body(plan: &Plan, profile: &Profile, out: &mut Vec<u8>) {
    let (kept, moving) = (&profile.kept, &profile.moving);
    let at = moving.at;
    put_array(out, 9);
    put_int(out, i64::from(profile.version));
    put_map(out, profile.offsets.len());
    for (name, offset) in &profile.offsets {
        put_text(out, name);
        put_int(out, *offset);
    }
    put_array(out, moving.entered.len() + kept.marks.len() + kept.attribute_times.len());
    for &time in moving.entered.iter().chain(&kept.marks).chain(&kept.attribute_times) {
        put_optional(out, before(at, time));
    }
    put_array(out, moving.totals.len() + kept.latest.len() + kept.attributes.len());
    for &total in &moving.totals {
        put_optional(out, total);
    }
    for value in kept.latest.iter().chain(&kept.attributes) {
        put_scalar(out, value);
    }
    put_bytes(out, &kept.recent);
    put_array(out, kept.orders.len() * order_width(plan));
    for order in &kept.orders {
        put_bytes(out, &order.id);
        put_int(out, at - order.time);
        put_int(out, order.left);
        put_int(out, order.taps as i64);
        if !plan.reversible.is_empty() {
            put_array(out, order.values.len());
            order.values.iter().for_each(|&value| put_optional(out, value));
        }
    }
    put_map(out, kept.waiting.len());
    for waiting in &kept.waiting {
        put_bytes(out, &waiting.id);
        put_array(out, waiting.refunds.len());
        for &(time, amount) in &waiting.refunds {
            put_array(out, 2);
            put_int(out, at - time);
            put_optional(out, amount);
        }
    }
    put_array(out, kept.rows.len());
    for (series, rows) in plan.series.iter().zip(&kept.rows) {
        put_array(out, rows.tiles.len() * (1 + rows.columns.len()));
        let now = at.div_euclid(series.tile);
        rows.tiles.iter().for_each(|&tile| put_int(out, now - tile));
        rows.columns.iter().flatten().for_each(|&value| put_optional(out, value));
    }
    put_array(out, 0);
}
