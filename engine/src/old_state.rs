//! Bodies of state records of formats 1 and 2: streamseg/formats/old_state.py.

use crate::event::FINGERPRINT;
use crate::plan::Plan;
use crate::profile::{Order, Positions, Profile, Rows, Waiting};
use crate::wire::Reader;
use crate::Unsure;

/// Bytes of an id or an order.
const ID: usize = 8;

pub fn read_body(
    plan: &Plan,
    reader: &mut Reader,
    profile: &mut Profile,
    positions: &mut Positions,
) -> Result<(), Unsure> {
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
    for id in reader.bytes()?.chunks_exact(ID) {
        kept.recent.extend_from_slice(&id[..FINGERPRINT]);
    }
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
    for _ in &moving.positions {
        reader.bounded()?; // found again from the rows
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
    reader.int()?;
    Ok(())
}

fn id(reader: &mut Reader) -> Result<[u8; FINGERPRINT], Unsure> {
    let id: [u8; ID] = reader.bytes()?.try_into().map_err(|_| Unsure)?;
    id[..FINGERPRINT].try_into().map_err(|_| Unsure)
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
