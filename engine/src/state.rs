//! State records: streamseg/formats/state.py.

use crate::plan::Plan;
use crate::profile::{Kept, Moving, Order, Positions, Profile, Rows, Waiting, UNSET};
use crate::wire::{put_array, put_bytes, put_int, put_map, put_optional, put_scalar, put_text, Reader};
use crate::Unsure;

const FORMAT: u8 = 2;
const HEADER: usize = 42;
const NO_SEGMENT: u8 = 255;

fn be<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    bytes
}

/// Of a state: when time may change it, its worth, its segments.
pub fn summary(data: &[u8]) -> Option<(i64, i64, &[u8])> {
    let schemes = *data.get(HEADER - 1)? as usize;
    let segments = data.get(HEADER..HEADER + schemes)?;
    Some((i64::from_be_bytes(be(data, 16)), i64::from_be_bytes(be(data, 24)), segments))
}

/// Reads a state without an outbox into a profile.
pub fn decode(plan: &Plan, data: &[u8], profile: &mut Profile, positions: &mut Positions) -> Result<(), Unsure> {
    let (wake, worth, segments) = summary(data).ok_or(Unsure)?;
    let body = HEADER + segments.len() + 4;
    if data.len() <= body
        || data[36] != FORMAT
        || data[body - 4..body] != [0; 4]
        || segments.len() != plan.schemes.len()
    {
        return Err(Unsure);
    }
    profile.renew(plan);
    profile.moving.at = i64::from_be_bytes(be(data, 8));
    profile.wake = wake;
    profile.worth = worth;
    profile.version = u32::from_be_bytes(be(data, 32));
    for (place, &segment) in segments.iter().enumerate() {
        if segment != NO_SEGMENT && segment as usize >= plan.schemes[place].names.len() {
            return Err(Unsure);
        }
        profile.moving.segments[place] = if segment == NO_SEGMENT { UNSET } else { segment as i32 };
    }
    let mut reader = Reader::new(&data[body..]);
    read_body(plan, &mut reader, profile, positions)?;
    if reader.is_empty() {
        Ok(())
    } else {
        Err(Unsure)
    }
}

fn read_body(plan: &Plan, reader: &mut Reader, profile: &mut Profile, positions: &mut Positions) -> Result<(), Unsure> {
    reader.array_of(15)?;
    if reader.bytes()? != plan.layout_mark.as_bytes() {
        return Err(Unsure);
    }
    for _ in 0..reader.map()? {
        let name = reader.text()?;
        profile.offsets.push((positions.name(name), reader.int()?));
    }
    let (kept, moving) = (&mut profile.kept, &mut profile.moving);
    reader.array_of(plan.schemes.len())?;
    for entered in &mut moving.entered {
        *entered = reader.bounded()?;
    }
    kept.recent.extend_from_slice(reader.bytes()?);
    for _ in 0..reader.map()? {
        let order = read_order(plan, reader)?;
        kept.orders.push(order);
    }
    for _ in 0..reader.map()? {
        let waiting = read_waiting(reader)?;
        kept.waiting.push(waiting);
    }
    reader.array_of(plan.series.len())?;
    for rows in &mut kept.rows {
        read_rows(reader, rows)?;
    }
    reader.array_of(plan.windows.len())?;
    for position in &mut moving.positions {
        *position = usize::try_from(reader.bounded()?).map_err(|_| Unsure)?;
    }
    reader.array_of(plan.totals.len())?;
    for total in &mut moving.totals {
        *total = reader.optional()?;
    }
    reader.array_of(plan.marks)?;
    for mark in &mut kept.marks {
        *mark = reader.optional()?;
    }
    reader.array_of(plan.latest)?;
    for latest in &mut kept.latest {
        *latest = reader.scalar()?;
    }
    reader.array_of(plan.attributes.len())?;
    for attribute in &mut kept.attributes {
        *attribute = reader.scalar()?;
    }
    reader.array_of(plan.attributes.len())?;
    for time in &mut kept.attribute_times {
        *time = reader.optional()?;
    }
    reader.array_of(0)?; // trackers: not of the subset
    moving.expires = reader.int()?;
    check_positions(plan, kept, moving)
}

fn check_positions(plan: &Plan, kept: &Kept, moving: &Moving) -> Result<(), Unsure> {
    for (series, rows) in plan.series.iter().zip(&kept.rows) {
        // A tile leaves the shorter window first.
        let mut most = rows.tiles.len();
        for &window in &series.windows {
            if moving.positions[window] > most {
                return Err(Unsure);
            }
            most = moving.positions[window];
        }
    }
    Ok(())
}

fn id(reader: &mut Reader) -> Result<[u8; 8], Unsure> {
    reader.bytes()?.try_into().map_err(|_| Unsure)
}

fn read_order(plan: &Plan, reader: &mut Reader) -> Result<Order, Unsure> {
    let id = id(reader)?;
    reader.array_of(if plan.reversible.is_empty() { 3 } else { 4 })?;
    let (time, left, taps) = (reader.bounded()?, reader.bounded()?, reader.int()? as u64);
    let mut values = vec![];
    if !plan.reversible.is_empty() {
        reader.array_of(plan.reversible.len())?;
        for _ in &plan.reversible {
            values.push(reader.optional()?);
        }
    }
    Ok(Order { id, time, left, taps, values })
}

fn read_waiting(reader: &mut Reader) -> Result<Waiting, Unsure> {
    let id = id(reader)?;
    let mut refunds = vec![];
    for _ in 0..reader.array()? {
        reader.array_of(2)?;
        refunds.push((reader.bounded()?, reader.optional()?));
    }
    Ok(Waiting { id, refunds })
}

fn read_rows(reader: &mut Reader, rows: &mut Rows) -> Result<(), Unsure> {
    reader.array_of(1 + rows.columns.len())?;
    let length = reader.array()?;
    for _ in 0..length {
        rows.tiles.push(reader.bounded()?);
    }
    for column in &mut rows.columns {
        reader.array_of(length)?;
        for _ in 0..length {
            column.push(reader.optional()?);
        }
    }
    Ok(())
}

/// A state record without changes: what is kept in memory. `outbox` goes between its head and its body.
pub fn encode(plan: &Plan, profile: &Profile, epoch: u32, out: &mut Vec<u8>) -> usize {
    let moving = &profile.moving;
    let position: i64 = profile.offsets.iter().map(|(_, offset)| offset + 1).sum();
    out.extend_from_slice(&(position as u64).to_be_bytes());
    out.extend_from_slice(&moving.at.to_be_bytes());
    out.extend_from_slice(&profile.wake.to_be_bytes());
    out.extend_from_slice(&profile.worth.to_be_bytes());
    out.extend_from_slice(&profile.version.to_be_bytes());
    out.push(FORMAT);
    out.extend_from_slice(&epoch.to_be_bytes());
    out.push(moving.segments.len() as u8);
    out.extend(moving.segments.iter().map(|&segment| if segment == UNSET { NO_SEGMENT } else { segment as u8 }));
    let head = out.len();
    out.extend_from_slice(&[0; 4]);
    put_body(plan, profile, out);
    head
}

fn put_body(plan: &Plan, profile: &Profile, out: &mut Vec<u8>) {
    let (kept, moving) = (&profile.kept, &profile.moving);
    put_array(out, 15);
    put_bytes(out, plan.layout_mark.as_bytes());
    put_map(out, profile.offsets.len());
    for (name, offset) in &profile.offsets {
        put_text(out, name);
        put_int(out, *offset);
    }
    put_ints(out, &moving.entered);
    put_bytes(out, &kept.recent);
    put_map(out, kept.orders.len());
    for order in &kept.orders {
        put_bytes(out, &order.id);
        put_array(out, if plan.reversible.is_empty() { 3 } else { 4 });
        put_int(out, order.time);
        put_int(out, order.left);
        put_int(out, order.taps as i64);
        if !plan.reversible.is_empty() {
            put_optionals(out, &order.values);
        }
    }
    put_map(out, kept.waiting.len());
    for waiting in &kept.waiting {
        put_bytes(out, &waiting.id);
        put_array(out, waiting.refunds.len());
        for &(time, amount) in &waiting.refunds {
            put_array(out, 2);
            put_int(out, time);
            put_optional(out, amount);
        }
    }
    put_array(out, kept.rows.len());
    for rows in &kept.rows {
        put_array(out, 1 + rows.columns.len());
        put_ints(out, &rows.tiles);
        for column in &rows.columns {
            put_optionals(out, column);
        }
    }
    put_array(out, moving.positions.len());
    for &position in &moving.positions {
        put_int(out, position as i64);
    }
    put_optionals(out, &moving.totals);
    put_optionals(out, &kept.marks);
    put_array(out, kept.latest.len());
    kept.latest.iter().for_each(|value| put_scalar(out, value));
    put_array(out, kept.attributes.len());
    kept.attributes.iter().for_each(|value| put_scalar(out, value));
    put_optionals(out, &kept.attribute_times);
    put_array(out, 0);
    put_int(out, moving.expires);
}

fn put_ints(out: &mut Vec<u8>, values: &[i64]) {
    put_array(out, values.len());
    values.iter().for_each(|&value| put_int(out, value));
}

fn put_optionals(out: &mut Vec<u8>, values: &[i64]) {
    put_array(out, values.len());
    values.iter().for_each(|&value| put_optional(out, value));
}
