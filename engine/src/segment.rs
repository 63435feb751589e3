//! Which segment a customer is in, and when that changes: streamseg/core/decision.py, deadline.py and assignment.py.

use crate::plan::{Fall, Plan, Step};
use crate::profile::{advance, Kept, Moving, Profile, Rows};
use crate::time::{LAST_INSTANT, NEVER};
use crate::value::{alone, condition, Customer, Locals, Scope, Val};
use crate::wire::NONE;
use crate::Unsure;

/// One scheme's decision to put a customer elsewhere.
#[derive(Clone, Copy)]
pub struct Move {
    pub scheme: usize,
    pub origin: i32,
    pub target: i32,
    /// When the segment left had been entered.
    pub entered: i64,
}

/// What a scheme will do if no event comes.
#[derive(Clone, Copy, PartialEq)]
pub struct Forecast {
    pub at: i64,
    pub target: i32,
}

pub const NO_FORECAST: Forecast = Forecast { at: NEVER, target: -1 };

/// Decides all schemes at `now`, where the customer is, and moves it. `spare` is space for a copy.
pub fn decide(
    plan: &Plan,
    kept: &Kept,
    moving: &mut Moving,
    now: i64,
    moves: &mut Vec<Move>,
    spare: &mut Moving,
) -> Result<(), Unsure> {
    moves.clear();
    let before = &*moving;
    let base = Scope { plan, kept, moving: before, now };
    let locals = Locals::new();
    let mut is_changed = false;
    for (place, scheme) in plan.schemes.iter().enumerate() {
        let current_state = if is_changed { &*spare } else { before };
        let scope = Scope { plan, kept, moving: current_state, now };
        let mut candidate = scheme.whens.len() as i32;
        for (segment, when) in scheme.whens.iter().enumerate() {
            if condition(when, &Customer { scope: &scope, base: &base, locals: &locals })? {
                candidate = segment as i32;
                break;
            }
        }
        let current = current_state.segments[place];
        if candidate == current || (candidate > current && current >= 0 && keeps(&scope, place, current)?) {
            continue;
        }
        moves.push(Move { scheme: place, origin: current, target: candidate, entered: current_state.entered[place] });
        if place + 1 < plan.schemes.len() {
            if !is_changed {
                copy(before, spare);
                is_changed = true;
            }
            spare.segments[place] = candidate;
            spare.entered[place] = now;
        }
    }
    for each in moves {
        moving.segments[each.scheme] = each.target;
        moving.entered[each.scheme] = now;
    }
    Ok(())
}

/// Whether the current segment keeps a customer who fits only a lower one.
fn keeps(scope: &Scope, place: usize, current: i32) -> Result<bool, Unsure> {
    let scheme = &scope.plan.schemes[place];
    let stay = scheme.min_stays[current as usize];
    if stay != 0 && scope.now < scope.moving.entered[place] + stay {
        return Ok(true);
    }
    match &scheme.stays[current as usize] {
        Some(stays) => Ok(alone(scope, stays)? == Val::Bool(true)),
        None => Ok(false),
    }
}

/// No comparison turns after `now` and before the result, for a customer that was moved to `now`.
pub fn after(plan: &Plan, kept: &Kept, moving: &Moving, now: i64) -> Result<i64, Unsure> {
    let mut nearest = NEVER;
    for rise in &plan.rises {
        let mark = kept.marks[rise.mark];
        if mark != NONE {
            let elapsed = now - mark;
            if let Some(&offset) = rise.offsets.iter().find(|&&offset| offset > elapsed) {
                nearest = nearest.min(mark + offset);
            }
        }
    }
    for fall in &plan.falls {
        nearest = nearest.min(fall_after(plan, fall, kept, moving, nearest));
    }
    for (place, scheme) in plan.schemes.iter().enumerate() {
        // -1, no segment yet, stands for the last one, as in Python.
        let segment = moving.segments[place];
        let stays = &scheme.min_stays;
        let stay = if segment < 0 { stays[stays.len() - 1] } else { stays[segment as usize] };
        let at = moving.entered[place] + stay;
        if stay != 0 && now < at {
            nearest = nearest.min(at);
        }
    }
    for step in &plan.steps {
        nearest = nearest.min(step_after(plan, step, kept, moving, now)?);
    }
    Ok(if nearest <= LAST_INSTANT { nearest } else { NEVER })
}

fn fall_after(plan: &Plan, fall: &Fall, kept: &Kept, moving: &Moving, nearest: i64) -> i64 {
    let total = moving.totals[fall.slot];
    if total < fall.limits[0] {
        return NEVER;
    }
    let window = &plan.windows[fall.window];
    let rows = &kept.rows[window.series];
    let position = moving.positions[fall.window];
    match rows.tiles.get(position) {
        Some(&tile) if (tile + 1) * window.tile + window.length < nearest => {
            let below = fall.limits.partition_point(|&limit| limit <= total);
            let limit = fall.limits[below - 1];
            falls_below(rows, fall.column, position, total, limit)
                .map_or(NEVER, |tile| (tile + 1) * window.tile + window.length)
        }
        _ => NEVER,
    }
}

/// The tile whose leaving takes a falling total below a limit that is above zero.
fn falls_below(rows: &Rows, column: usize, position: usize, total: i64, limit: i64) -> Option<i64> {
    let values = &rows.columns[column];
    if limit <= 0 {
        return None;
    }
    if limit < total - limit {
        let mut kept = 0;
        for row in (0..values.len()).rev() {
            kept += values[row];
            if kept >= limit {
                return Some(rows.tiles[row]);
            }
        }
        return None;
    }
    let mut left = total;
    for (row, value) in values.iter().enumerate().skip(position) {
        left -= value;
        if left < limit {
            return Some(rows.tiles[row]);
        }
    }
    None
}

fn step_after(plan: &Plan, step: &Step, kept: &Kept, moving: &Moving, now: i64) -> Result<i64, Unsure> {
    let mut nearest = NEVER;
    for &index in &step.windows {
        let window = &plan.windows[index];
        if let Some(&tile) = kept.rows[window.series].tiles.get(moving.positions[index]) {
            nearest = nearest.min((tile + 1) * window.tile + window.length);
        }
    }
    let Some(node) = &step.difference else { return Ok(nearest) };
    let at = |now| alone(&Scope { plan, kept, moving, now }, node);
    match (at(now)?, at(now + 1)?) {
        (Val::Null, _) | (_, Val::Null) => Ok(nearest),
        (Val::Int(here), Val::Int(there)) => {
            let slope = there.checked_sub(here).ok_or(Unsure)?;
            if slope == 0 {
                Ok(nearest)
            } else if here == 0 {
                Ok(now + 1)
            } else if (here > 0) != (slope > 0) {
                let (way, pace) = (here.unsigned_abs(), slope.unsigned_abs());
                Ok(nearest.min(now.saturating_add(i64::try_from(way.div_ceil(pace)).unwrap_or(NEVER))))
            } else {
                Ok(nearest)
            }
        }
        _ => Err(Unsure),
    }
}

/// Space for a customer that is taken on in time.
#[derive(Default)]
pub struct Ahead {
    moving: Moving,
    moves: Vec<Move>,
    pub spare: Moving,
}

/// For each scheme its next change if no event comes.
pub fn forecast(
    plan: &Plan,
    profile: &Profile,
    now: i64,
    ahead: &mut Ahead,
    found: &mut Vec<Forecast>,
) -> Result<(), Unsure> {
    found.clear();
    found.resize(plan.schemes.len(), NO_FORECAST);
    let kept = &profile.kept;
    let mut at = if profile.wake > now { profile.wake } else { after(plan, kept, &profile.moving, now)? };
    if at == NEVER {
        return Ok(());
    }
    let Ahead { moving, moves, spare } = ahead;
    copy(&profile.moving, moving);
    let mut missing = plan.schemes.len();
    while missing > 0 && at != NEVER {
        advance(plan, &kept.rows, moving, at);
        decide(plan, kept, moving, at, moves, spare)?;
        for each in moves.iter() {
            let place = &mut found[each.scheme];
            if place.at == NEVER {
                *place = Forecast { at, target: each.target };
                missing -= 1;
            }
        }
        let next = if missing > 0 { after(plan, kept, moving, at)? } else { NEVER };
        if next <= at {
            return Err(Unsure); // of a broken state: time stands still
        }
        at = next;
    }
    Ok(())
}

fn copy(from: &Moving, to: &mut Moving) {
    to.at = from.at;
    to.expires = from.expires;
    to.segments.clone_from(&from.segments);
    to.entered.clone_from(&from.entered);
    to.positions.clone_from(&from.positions);
    to.totals.clone_from(&from.totals);
}
