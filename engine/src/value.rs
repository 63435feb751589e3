//! What expressions come to; the rules are those of streamseg/core/value.py.

use std::cell::Cell;
use std::cmp::Ordering;
use std::mem::MaybeUninit;

use crate::event::{self, Value};
use crate::plan::{Node, Plan, Sign};
use crate::profile::{Kept, Moving};
use crate::wire::{Scalar, NONE};
use crate::Unsure;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// In lowest terms, the denominator above one.
    Ratio(i64, i64),
    Text(&'a str),
    /// A float, whose exact value only Python tells.
    Real,
}

/// What an expression is evaluated over.
pub struct Scope<'a> {
    pub plan: &'a Plan,
    pub kept: &'a Kept,
    pub moving: &'a Moving,
    pub now: i64,
}

fn gcd(left: i128, right: i128) -> i128 {
    let (mut a, mut b) = (left.abs(), right.abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn exact<'a>(numerator: i128, denominator: i128) -> Result<Val<'a>, Unsure> {
    let common = gcd(numerator, denominator) * denominator.signum();
    let (n, d) = (numerator / common, denominator / common);
    let (n, d) = (i64::try_from(n).map_err(|_| Unsure)?, i64::try_from(d).map_err(|_| Unsure)?);
    Ok(if d == 1 { Val::Int(n) } else { Val::Ratio(n, d) })
}

fn parts(value: Val) -> Result<Option<(i128, i128)>, Unsure> {
    match value {
        Val::Int(n) => Ok(Some((n as i128, 1))),
        Val::Ratio(n, d) => Ok(Some((n as i128, d as i128))),
        Val::Null => Ok(None),
        _ => Err(Unsure),
    }
}

fn product(left: i128, right: i128) -> Result<i128, Unsure> {
    left.checked_mul(right).ok_or(Unsure)
}

fn arithmetic<'a>(node: &Node, left: Val<'a>, right: Val<'a>) -> Result<Val<'a>, Unsure> {
    if let (Val::Int(a), Val::Int(b)) = (left, right) {
        let quick = match node {
            Node::Add(..) => a.checked_add(b),
            Node::Subtract(..) => a.checked_sub(b),
            Node::Multiply(..) => a.checked_mul(b),
            _ => None,
        };
        if let Some(result) = quick {
            return Ok(Val::Int(result));
        }
    }
    let (Some((a, b)), Some((c, d))) = (parts(left)?, parts(right)?) else { return Ok(Val::Null) };
    match node {
        Node::Add(..) => exact(product(a, d)?.checked_add(product(c, b)?).ok_or(Unsure)?, product(b, d)?),
        Node::Subtract(..) => exact(product(a, d)?.checked_sub(product(c, b)?).ok_or(Unsure)?, product(b, d)?),
        Node::Multiply(..) => exact(product(a, c)?, product(b, d)?),
        _ if c == 0 => Ok(Val::Null),
        _ => exact(product(a, d)?, product(b, c)?),
    }
}

pub fn order(left: Val, right: Val) -> Result<Option<Ordering>, Unsure> {
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(&b)),
        (Val::Text(a), Val::Text(b)) => Some(a.cmp(b)),
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(&b)),
        (Val::Real, Val::Int(_) | Val::Ratio(..) | Val::Real) | (Val::Int(_) | Val::Ratio(..), Val::Real) => {
            return Err(Unsure)
        }
        (Val::Int(_) | Val::Ratio(..), Val::Int(_) | Val::Ratio(..)) => {
            let (Some((a, b)), Some((c, d))) = (parts(left)?, parts(right)?) else { return Err(Unsure) };
            Some(product(a, d)?.cmp(&product(c, b)?))
        }
        _ => None,
    })
}

fn holds(sign: Sign, order: Ordering) -> bool {
    match sign {
        Sign::Less => order == Ordering::Less,
        Sign::LessEqual => order != Ordering::Greater,
        Sign::Greater => order == Ordering::Greater,
        Sign::GreaterEqual => order != Ordering::Less,
        Sign::Equal => order == Ordering::Equal,
        Sign::NotEqual => order != Ordering::Equal,
    }
}

fn compare(sign: Sign, left: Val, right: Val) -> Result<bool, Unsure> {
    if left == Val::Null || right == Val::Null {
        return Ok(false);
    }
    match order(left, right)? {
        Some(order) => Ok(holds(sign, order)),
        None => Err(Unsure),
    }
}

/// Equality of two properties: of one kind, and neither null.
fn same(left: Val, right: Val) -> Result<bool, Unsure> {
    if left == Val::Null || right == Val::Null {
        return Ok(false);
    }
    Ok(order(left, right)? == Some(Ordering::Equal))
}

fn ordered(sign: Sign, left: Val, right: Val) -> Result<bool, Unsure> {
    if matches!(left, Val::Bool(_)) || matches!(right, Val::Bool(_)) {
        return Ok(false);
    }
    Ok(order(left, right)?.is_some_and(|order| holds(sign, order)))
}

fn number(value: Val) -> Result<Val, Unsure> {
    match value {
        Val::Int(_) | Val::Ratio(..) => Ok(value),
        Val::Real => Err(Unsure),
        _ => Ok(Val::Null),
    }
}

fn truth(value: Val) -> Result<bool, Unsure> {
    match value {
        Val::Bool(truth) => Ok(truth),
        _ => Err(Unsure),
    }
}

#[inline]
fn optional<'a>(value: i64) -> Val<'a> {
    if value == NONE {
        Val::Null
    } else {
        Val::Int(value)
    }
}

fn kept(value: &Scalar) -> Val<'_> {
    match value {
        Scalar::Null => Val::Null,
        Scalar::Bool(truth) => Val::Bool(*truth),
        Scalar::Int(number) => Val::Int(*number),
        Scalar::Real(_) => Val::Real,
        Scalar::Text(text) => Val::Text(text),
    }
}

/// Where the leaves of an expression come from.
pub trait Leaves<'a> {
    fn leaf(&self, node: &'a Node) -> Result<Val<'a>, Unsure>;
}

/// Named features and scores, each evaluated when it is asked for first.
pub struct Locals<'a> {
    /// A bit for each that is evaluated.
    known: Cell<u64>,
    values: [Cell<MaybeUninit<Val<'a>>>; MAX_LOCALS],
}

/// Most locals that definitions may have here.
pub const MAX_LOCALS: usize = 40;

impl<'a> Locals<'a> {
    pub fn new() -> Self {
        Locals { known: Cell::new(0), values: [const { Cell::new(MaybeUninit::uninit()) }; MAX_LOCALS] }
    }

    #[inline]
    fn get(&self, base: &Scope<'a>, place: usize) -> Result<Val<'a>, Unsure> {
        let cell = self.values.get(place).ok_or(Unsure)?;
        if self.known.get() >> place & 1 == 1 {
            // SAFETY: the bit is set only below, after the value.
            return Ok(unsafe { cell.get().assume_init() });
        }
        let value = evaluate(&base.plan.locals[place], &Customer { scope: base, base, locals: self })?;
        cell.set(MaybeUninit::new(value));
        self.known.set(self.known.get() | 1 << place);
        Ok(value)
    }
}

/// A customer at an instant; what is named is of `base`, whatever has moved since.
pub struct Customer<'a, 'b, 'l> {
    pub scope: &'l Scope<'a>,
    pub base: &'l Scope<'b>,
    pub locals: &'l Locals<'b>,
}

impl<'a, 'b: 'a> Leaves<'a> for Customer<'a, 'b, '_> {
    #[inline]
    fn leaf(&self, node: &'a Node) -> Result<Val<'a>, Unsure> {
        let scope = self.scope;
        Ok(match node {
            Node::Local(place) => self.locals.get(self.base, *place)?,
            Node::Total(slot) => optional(scope.moving.totals[*slot]),
            Node::Since(mark) => match scope.kept.marks[*mark] {
                NONE => Val::Null,
                time => Val::Int(scope.now - time),
            },
            Node::Latest(place) => kept(&scope.kept.latest[*place]),
            Node::Attribute(place) => kept(&scope.kept.attributes[*place]),
            Node::Segment(place) => {
                let names = &scope.plan.schemes[*place].names;
                // As Python does: -1 stands for the last name.
                let segment = scope.moving.segments[*place];
                Val::Text(if segment < 0 { names.last().ok_or(Unsure)? } else { &names[segment as usize] })
            }
            _ => return Err(Unsure),
        })
    }
}

/// An event, in a filter.
pub struct Happened<'a> {
    pub props: Option<&'a [u8]>,
    pub amount: i64,
}

pub fn property<'a>(props: Option<&'a [u8]>, name: &str) -> Result<Val<'a>, Unsure> {
    let Some(props) = props else { return Ok(Val::Null) };
    Ok(match event::field(props, name) {
        None | Some(Value::Null) => Val::Null,
        Some(Value::True) => Val::Bool(true),
        Some(Value::False) => Val::Bool(false),
        Some(Value::Int(number)) => Val::Int(number),
        Some(Value::Text(text)) => Val::Text(text),
        Some(Value::Other) => return Err(Unsure),
    })
}

impl<'a> Leaves<'a> for Happened<'a> {
    fn leaf(&self, node: &'a Node) -> Result<Val<'a>, Unsure> {
        match node {
            Node::Amount => Ok(optional(self.amount)),
            Node::Field(name) => property(self.props, name),
            _ => Err(Unsure),
        }
    }
}

pub fn evaluate<'a, L: Leaves<'a>>(node: &'a Node, leaves: &L) -> Result<Val<'a>, Unsure> {
    Ok(match node {
        Node::Null => Val::Null,
        Node::Bool(truth) => Val::Bool(*truth),
        Node::Int(number) => Val::Int(*number),
        Node::Ratio(n, d) => Val::Ratio(*n, *d),
        Node::Text(text) => Val::Text(text),
        Node::Add(left, right)
        | Node::Subtract(left, right)
        | Node::Multiply(left, right)
        | Node::Divide(left, right) => arithmetic(node, evaluate(left, leaves)?, evaluate(right, leaves)?)?,
        Node::And(_) | Node::Or(_) | Node::Not(_) | Node::IsNull(_) | Node::Compare(..) => {
            Val::Bool(condition(node, leaves)?)
        }
        Node::IsTrue(inner) => Val::Bool(evaluate(inner, leaves)? == Val::Bool(true)),
        Node::Same(left, right) => Val::Bool(same(evaluate(left, leaves)?, evaluate(right, leaves)?)?),
        Node::Differs(left, right) => {
            let (left, right) = (evaluate(left, leaves)?, evaluate(right, leaves)?);
            Val::Bool(left != Val::Null && right != Val::Null && !same(left, right)?)
        }
        Node::Ordered(sign, left, right) => {
            Val::Bool(ordered(*sign, evaluate(left, leaves)?, evaluate(right, leaves)?)?)
        }
        Node::If(test, yes, no) => evaluate(if condition(test, leaves)? { yes } else { no }, leaves)?,
        Node::Below(points, inner) => {
            let value = evaluate(inner, leaves)?;
            if let (Val::Int(number), true) = (value, points.iter().all(|&(_, d)| d == 1)) {
                return Ok(Val::Int(points.iter().take_while(|&&(point, _)| point < number).count() as i64));
            }
            let mut count = 0;
            for &(n, d) in points {
                let point = if d == 1 { Val::Int(n) } else { Val::Ratio(n, d) };
                if order(point, value)?.ok_or(Unsure)? != Ordering::Less {
                    break;
                }
                count += 1;
            }
            Val::Int(count)
        }
        Node::Number(inner) => number(evaluate(inner, leaves)?)?,
        Node::Score { guard, first, step, points, of } => {
            if at_hand(guard, leaves).is_none() && evaluate(guard, leaves)? == Val::Null {
                return Ok(Val::Null);
            }
            let below = match at_hand(of, leaves) {
                Some(number) => points.iter().take_while(|&&point| point < number).count(),
                None => below(points, evaluate(of, leaves)?)?,
            };
            Val::Int(first + step * below as i64)
        }
        leaf => leaves.leaf(leaf)?,
    })
}

fn below(points: &[i64], value: Val) -> Result<usize, Unsure> {
    let mut count = 0;
    for &point in points {
        if order(Val::Int(point), value)?.ok_or(Unsure)? != Ordering::Less {
            break;
        }
        count += 1;
    }
    Ok(count)
}

/// A number that is at hand, of what is compared most.
#[inline]
fn at_hand<'a, L: Leaves<'a>>(node: &'a Node, leaves: &L) -> Option<i64> {
    match node {
        Node::Int(number) => Some(*number),
        Node::Local(_) | Node::Total(_) | Node::Since(_) => match leaves.leaf(node) {
            Ok(Val::Int(number)) => Some(number),
            _ => None,
        },
        _ => None,
    }
}

#[inline]
pub fn condition<'a, L: Leaves<'a>>(node: &'a Node, leaves: &L) -> Result<bool, Unsure> {
    match node {
        Node::Compare(sign, left, right) => {
            if let (Some(left), Some(right)) = (at_hand(left, leaves), at_hand(right, leaves)) {
                return Ok(holds(*sign, left.cmp(&right)));
            }
            compare(*sign, evaluate(left, leaves)?, evaluate(right, leaves)?)
        }
        Node::And(nodes) => {
            for each in nodes {
                if !condition(each, leaves)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Node::Or(nodes) => {
            for each in nodes {
                if condition(each, leaves)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Node::Not(inner) => Ok(!condition(inner, leaves)?),
        Node::IsNull(inner) => Ok(evaluate(inner, leaves)? == Val::Null),
        _ => truth(evaluate(node, leaves)?),
    }
}

/// One expression.
pub fn alone<'a>(scope: &Scope<'a>, node: &'a Node) -> Result<Val<'a>, Unsure> {
    evaluate(node, &Customer { scope, base: scope, locals: &Locals::new() })
}
