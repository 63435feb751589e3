//! What is published, as bytes: streamseg/formats/messages.py and redis_entry.py.

use std::ops::Range;

use crate::plan::{Plan, Scheme};
use crate::profile::{Profile, UNSET};
use crate::records::Records;
use crate::segment::{Forecast, Move};
use crate::time::{day_text, instant_text, NEVER};
use crate::value::{evaluate, Customer, Locals, Scope, Val};
use crate::wire::{put_array, put_bytes, put_int, put_text, put_text_head};
use crate::Unsure;

pub fn put_json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    // Many bytes at once: it does not stop at the first.
    if !text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\')) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn put_int_text(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [0u8; 20];
    let mut place = buffer.len();
    let mut left = value.unsigned_abs();
    loop {
        place -= 1;
        buffer[place] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&buffer[place..]);
}

fn put_instant(out: &mut Vec<u8>, instant: i64) {
    out.push(b'"');
    out.extend_from_slice(&instant_text(instant));
    out.push(b'"');
}

fn put_optional_instant(out: &mut Vec<u8>, instant: i64) {
    if instant == NEVER {
        out.extend_from_slice(b"null");
    } else {
        put_instant(out, instant);
    }
}

fn put_optional_name(out: &mut Vec<u8>, scheme: &Scheme, segment: i32) {
    if segment == UNSET {
        out.extend_from_slice(b"null");
    } else {
        put_json_text(out, &scheme.names[segment as usize]);
    }
}

fn half_even(numerator: i128, denominator: i128) -> i128 {
    let (floor, rest) = (numerator.div_euclid(denominator), numerator.rem_euclid(denominator));
    match (rest * 2).cmp(&denominator) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Greater => floor + 1,
        std::cmp::Ordering::Equal => floor + (floor & 1),
    }
}

/// The nearest whole number, the even one on a tie.
pub fn rounded(value: Val) -> Result<i64, Unsure> {
    match value {
        Val::Int(number) => Ok(number),
        Val::Ratio(n, d) => i64::try_from(half_even(n as i128, d as i128)).map_err(|_| Unsure),
        _ => Err(Unsure),
    }
}

/// Major units with the currency's decimals; more of them only where a quotient needs them (four at most).
fn put_money(out: &mut Vec<u8>, value: Val, digits: usize) -> Result<(), Unsure> {
    if let (Val::Int(minor @ 0..), 1..=4) = (value, digits) {
        let unit = 10i64.pow(digits as u32);
        put_int_text(out, minor / unit);
        out.push(b'.');
        let start = out.len();
        put_int_text(out, minor % unit + unit); // a one before them, for the zeros
        out.remove(start);
        return Ok(());
    }
    let (scaled, extra) = match value {
        Val::Int(number) => (number as i128, 0),
        Val::Ratio(n, d) => (half_even(n as i128 * 10_000, d as i128), 4),
        _ => return Err(Unsure),
    };
    let places = digits + extra;
    let text = format!("{:0>width$}", scaled.unsigned_abs(), width = places + 1);
    if scaled < 0 {
        out.push(b'-');
    }
    let (whole, decimals) = text.split_at(text.len() - places);
    out.extend_from_slice(whole.as_bytes());
    let kept = decimals.len().min(digits.max(decimals.trim_end_matches('0').len()));
    if kept > 0 {
        out.push(b'.');
        out.extend_from_slice(&decimals.as_bytes()[..kept]);
    }
    Ok(())
}

fn put_ratio(out: &mut Vec<u8>, numerator: i64, denominator: i64) -> Result<(), Unsure> {
    const EXACT: u64 = 1 << 53;
    if numerator.unsigned_abs() > EXACT || denominator.unsigned_abs() > EXACT {
        return Err(Unsure);
    }
    let value = numerator as f64 / denominator as f64;
    if !(1e-4..1e15).contains(&value.abs()) {
        return Err(Unsure); // written with an exponent, perhaps
    }
    out.extend_from_slice(format!("{value}").as_bytes());
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: Val, money: bool, digits: usize) -> Result<(), Unsure> {
    match value {
        Val::Null => out.extend_from_slice(b"null"),
        _ if money => {
            out.push(b'"');
            put_money(out, value, digits)?;
            out.push(b'"');
        }
        Val::Bool(truth) => out.extend_from_slice(if truth { b"true" } else { b"false" }),
        Val::Int(number) => put_int_text(out, number),
        Val::Ratio(n, d) => put_ratio(out, n, d)?,
        Val::Text(text) => put_json_text(out, text),
        Val::Real => return Err(Unsure),
    }
    Ok(())
}

/// A change that is published, and where its body is among those of the group.
pub struct Sent {
    pub version: u32,
    pub at: i64,
    pub place: Range<usize>,
}

impl Sent {
    pub fn body<'a>(&self, bodies: &'a [u8]) -> &'a [u8] {
        &bodies[self.place.clone()]
    }
}

/// A change as it is told, beside its customer.
pub struct Told<'a> {
    pub version: u32,
    pub cause: Option<&'a str>,
    pub following: Forecast,
    pub complete: bool,
}

const CHANGE_TYPE: &[u8] = b"streamseg.segment.changed.v1";

/// Appends the body of a change message.
pub fn put_change(
    out: &mut Vec<u8>,
    plan: &Plan,
    customer: &str,
    profile: &Profile,
    now: i64,
    each: &Move,
    told: &Told,
) -> Result<(), Unsure> {
    let scheme = &plan.schemes[each.scheme];
    out.extend_from_slice(b"{\"customer_id\":");
    put_json_text(out, customer);
    out.extend_from_slice(b",\"scheme\":");
    put_json_text(out, &scheme.name);
    out.extend_from_slice(b",\"from\":");
    put_optional_name(out, scheme, each.origin);
    out.extend_from_slice(b",\"to\":");
    put_optional_name(out, scheme, each.target);
    out.extend_from_slice(b",\"version\":");
    put_int_text(out, told.version as i64);
    match told.cause {
        Some(cause) => {
            out.extend_from_slice(b",\"reason\":\"event\",\"cause\":");
            put_json_text(out, cause);
        }
        None => out.extend_from_slice(b",\"reason\":\"time\",\"cause\":null"),
    }
    out.extend_from_slice(b",\"time\":");
    put_instant(out, now);
    out.extend_from_slice(b",\"since\":");
    if each.origin == UNSET {
        out.extend_from_slice(b"null");
    } else {
        put_instant(out, each.entered);
    }
    out.extend_from_slice(b",\"next_change_at\":");
    put_optional_instant(out, told.following.at);
    out.extend_from_slice(b",\"next_segment\":");
    put_optional_name(out, scheme, told.following.target);
    out.extend_from_slice(b",\"definitions\":");
    put_json_text(out, &plan.hash);
    out.extend_from_slice(if told.complete { b",\"complete\":true" } else { b",\"complete\":false" });
    out.extend_from_slice(b",\"holdout\":false,\"values\":{");
    let scope = Scope { plan, kept: &profile.kept, moving: &profile.moving, now };
    let locals = Locals::new();
    for (place, shown) in scheme.values.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&shown.label);
        let value = evaluate(&shown.node, &Customer { scope: &scope, base: &scope, locals: &locals })?;
        put_value(out, value, shown.money, plan.digits as usize)?;
    }
    out.extend_from_slice(b"}}");
    Ok(())
}

/// The body of a message of the compacted topic: the customer's whole assignment.
pub fn put_current(out: &mut Vec<u8>, plan: &Plan, customer: &str, profile: &Profile, ahead: &[Forecast]) {
    out.extend_from_slice(b"{\"customer_id\":");
    put_json_text(out, customer);
    out.extend_from_slice(b",\"version\":");
    put_int_text(out, profile.version as i64);
    out.extend_from_slice(b",\"time\":");
    put_instant(out, profile.moving.at);
    out.extend_from_slice(b",\"definitions\":");
    put_json_text(out, &plan.hash);
    out.extend_from_slice(b",\"schemes\":{");
    let mut first = true;
    for (place, scheme) in plan.schemes.iter().enumerate() {
        let segment = profile.moving.segments[place];
        if segment == UNSET {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        put_json_text(out, &scheme.name);
        out.extend_from_slice(b":{\"segment\":");
        put_optional_name(out, scheme, segment);
        out.extend_from_slice(b",\"since\":");
        put_instant(out, profile.moving.entered[place]);
        out.extend_from_slice(b",\"next_change_at\":");
        put_optional_instant(out, ahead[place].at);
        out.extend_from_slice(b",\"next_segment\":");
        put_optional_name(out, scheme, ahead[place].target);
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
}

/// A change as the counters in Redis see it.
#[derive(Clone, Copy)]
pub struct Counted {
    pub version: u32,
    pub scheme: usize,
    pub origin: i32,
    pub target: i32,
    pub at: i64,
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).unwrap_or_default()
}

fn joined(out: &mut Vec<u8>, left: &str, sign: &str, right: &str) {
    put_text_head(out, left.len() + sign.len() + right.len());
    for part in [left, sign, right] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// What the script in Redis is told of a customer (see redis_server.py), in so many elements.
#[allow(clippy::too_many_arguments)]
pub fn put_entry(
    out: &mut Vec<u8>,
    plan: &Plan,
    customer: &str,
    profile: &Profile,
    ahead: &[Forecast],
    moves: &[Counted],
    partition: i64,
    epoch: u32,
) -> usize {
    let shown = || (0..plan.schemes.len()).filter(|&place| profile.moving.segments[place] != UNSET);
    let given = |place: usize| usize::from(ahead[place].at != NEVER) + usize::from(ahead[place].target != UNSET);
    let (count, forecasts) = (shown().count(), shown().map(given).sum::<usize>());
    let told = || moves.iter().filter(|each| each.origin != UNSET);
    let sizes = [2 + 2 * forecasts, 2 + 4 * count, 2 * count - forecasts, 2 * count, 3 * told().count()];
    put_text(out, customer);
    put_int(out, profile.version as i64);
    put_int(out, partition);
    put_int(out, epoch as i64);
    sizes.iter().for_each(|&size| put_int(out, size as i64));
    let name = |out: &mut Vec<u8>, scheme: &Scheme, what: &str| joined(out, &scheme.name, "", what);
    put_text(out, "updated_at");
    put_text(out, ascii(&instant_text(profile.moving.at)));
    for place in shown() {
        let scheme = &plan.schemes[place];
        if ahead[place].at != NEVER {
            name(out, scheme, ".next_change_at");
            put_text(out, ascii(&instant_text(ahead[place].at)));
        }
        if ahead[place].target != UNSET {
            name(out, scheme, ".next_segment");
            put_text(out, &scheme.names[ahead[place].target as usize]);
        }
    }
    put_text(out, "version");
    let mut text = Vec::with_capacity(20);
    put_int_text(&mut text, profile.version as i64);
    put_text(out, ascii(&text));
    for place in shown() {
        let scheme = &plan.schemes[place];
        put_text(out, &scheme.name);
        put_text(out, &scheme.names[profile.moving.segments[place] as usize]);
        name(out, scheme, ".since");
        put_text(out, ascii(&instant_text(profile.moving.entered[place])));
    }
    for place in shown() {
        let scheme = &plan.schemes[place];
        if ahead[place].at == NEVER {
            name(out, scheme, ".next_change_at");
        }
        if ahead[place].target == UNSET {
            name(out, scheme, ".next_segment");
        }
    }
    for place in shown() {
        let scheme = &plan.schemes[place];
        put_text(out, &scheme.name);
        put_text(out, &scheme.names[profile.moving.segments[place] as usize]);
    }
    for each in told() {
        let scheme = &plan.schemes[each.scheme];
        put_int(out, each.version as i64);
        joined(out, &scheme.name, ":", ascii(&day_text(each.at)));
        joined(out, &scheme.names[each.origin as usize], ">", &scheme.names[each.target as usize]);
    }
    4 + sizes.len() + sizes.iter().sum::<usize>()
}

/// CloudEvents attributes of a change.
pub fn push_change(records: &mut Records, key: &[u8], sent: &Sent, bodies: &[u8], source: &[u8], id: &mut Vec<u8>) {
    id.clear();
    id.extend_from_slice(key);
    id.push(b':');
    put_int_text(id, sent.version as i64);
    let time = instant_text(sent.at);
    records.push(
        Some(key),
        Some(sent.body(bodies)),
        &[
            (b"ce_specversion", b"1.0"),
            (b"ce_id", id),
            (b"ce_source", source),
            (b"ce_type", CHANGE_TYPE),
            (b"ce_time", &time),
            (b"ce_subject", key),
            (b"content-type", b"application/json"),
        ],
    );
}

/// Appends a state record with its changes: `kept` with an outbox after its head.
pub fn with_outbox(kept: &[u8], head: usize, outbox: &[Sent], bodies: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kept[..head]);
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    let start = out.len();
    put_array(out, outbox.len());
    for sent in outbox {
        put_array(out, 3);
        put_int(out, sent.version as i64);
        put_int(out, sent.at);
        put_bytes(out, sent.body(bodies));
    }
    let length = (out.len() - start) as u32;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&kept[head + 1..]);
}
