//! Definitions as streamseg/formats/native_plan.py hands them over: checked and bound by Python, and of its subset.

use serde::Deserialize;

use crate::message::put_json_text;
use crate::value::MAX_LOCALS;

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
pub enum Sign {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// An expression over a customer and an instant, or, in a filter, over an event.
#[derive(Deserialize, Debug, Clone)]
pub enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Ratio(i64, i64),
    Text(String),
    Local(usize),
    Total(usize),
    Latest(usize),
    Attribute(usize),
    /// The name of the segment a scheme has.
    Segment(usize),
    /// The time since a mark; null if there is none.
    Since(usize),
    /// A property of the event.
    Field(String),
    /// The amount of the event.
    Amount,
    Add(Box<Node>, Box<Node>),
    Subtract(Box<Node>, Box<Node>),
    Multiply(Box<Node>, Box<Node>),
    Divide(Box<Node>, Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    IsNull(Box<Node>),
    /// Of two numbers, two texts or two truths; false if either is null.
    Compare(Sign, Box<Node>, Box<Node>),
    /// Equality of two properties.
    Same(Box<Node>, Box<Node>),
    Differs(Box<Node>, Box<Node>),
    Ordered(Sign, Box<Node>, Box<Node>),
    IsTrue(Box<Node>),
    If(Box<Node>, Box<Node>, Box<Node>),
    /// How many of these (ascending) are below a number.
    Below(Vec<(i64, i64)>, Box<Node>),
    /// The number that a property is; null if it is none.
    Number(Box<Node>),
    /// `first`, and one more (or less) for each of the points (ascending) that is below a number; null if the guard is.
    #[serde(skip)]
    Score {
        guard: Box<Node>,
        first: i64,
        step: i64,
        points: Vec<i64>,
        of: Box<Node>,
    },
}

#[derive(Deserialize, Debug)]
pub struct Window {
    pub series: usize,
    pub length: i64,
    pub tile: i64,
    /// Columns (from 0) and slots of the totals.
    pub sums: Vec<(usize, usize)>,
    /// Columns (from 0, after the sums), slots, and whether the greatest is kept.
    pub extremes: Vec<(usize, usize, bool)>,
}

#[derive(Deserialize, Debug)]
pub struct Series {
    pub tile: i64,
    pub sums: usize,
    pub extremes: Vec<bool>,
    /// Indexes of windows, the shortest first.
    pub windows: Vec<usize>,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq)]
pub enum What {
    Count,
    Numbers,
    Sum,
}

#[derive(Deserialize, Debug)]
pub struct TapSeries {
    pub series: usize,
    /// What is summed, and the place of the field.
    pub sums: Vec<(What, usize)>,
    pub extremes: Vec<usize>,
}

#[derive(Deserialize, Debug)]
pub struct Tap {
    pub filter: Option<Node>,
    /// The bit of a filtered tap in an order's entry.
    pub bit: u64,
    pub first_mark: Option<usize>,
    pub last_mark: Option<usize>,
    pub latest: Vec<(String, usize)>,
    pub fields: Vec<String>,
    pub series: Vec<TapSeries>,
    pub forever_sums: Vec<(What, usize, usize)>,
    pub forever_extremes: Vec<(usize, usize, bool)>,
    pub counts: bool,
    /// All that it adds to what rules may look at; None if it may do more than add.
    #[serde(skip)]
    pub added: Option<Vec<Added>>,
}

/// What an event adds to a total that only falls with time.
#[derive(Debug, PartialEq)]
pub struct Added {
    pub what: (What, usize),
    pub slot: usize,
    /// No rule tells one total below this from another.
    pub lowest: i64,
}

#[derive(Deserialize, Debug)]
pub struct Fall {
    pub slot: usize,
    pub window: usize,
    pub column: usize,
    pub limits: Vec<i64>,
}

#[derive(Deserialize, Debug)]
pub struct Rise {
    pub mark: usize,
    pub offsets: Vec<i64>,
}

#[derive(Deserialize, Debug)]
pub struct Step {
    pub windows: Vec<usize>,
    pub difference: Option<Node>,
}

#[derive(Deserialize, Debug)]
pub struct Shown {
    pub name: String,
    /// The name as JSON, with its colon.
    #[serde(skip)]
    pub label: Vec<u8>,
    pub node: Node,
    pub money: bool,
}

#[derive(Deserialize, Debug)]
pub struct Scheme {
    pub name: String,
    pub names: Vec<String>,
    pub whens: Vec<Node>,
    pub stays: Vec<Option<Node>>,
    pub min_stays: Vec<i64>,
    pub values: Vec<Shown>,
    /// The longest window that is read; 0 if none is.
    pub longest: i64,
    /// Whether one without end is.
    pub endless: bool,
}

#[derive(Deserialize, Debug)]
pub struct Plan {
    pub hash: String,
    pub layout_mark: String,
    /// The first four bytes of it, as states have them.
    #[serde(skip)]
    pub mark: [u8; 4],
    pub currency: String,
    pub digits: u32,
    pub refund_window: i64,
    pub max_orders: usize,
    pub max_waiting_orders: usize,
    pub max_waiting: usize,
    pub remembered_bytes: usize,
    pub kept_before_window: usize,
    pub max_text: usize,
    pub taps: Vec<Tap>,
    /// Taps by event type.
    pub by_type: Vec<(String, Vec<usize>)>,
    pub engagement: Vec<usize>,
    pub series: Vec<Series>,
    pub windows: Vec<Window>,
    /// What the totals are before any event.
    pub totals: Vec<Option<i64>>,
    pub marks: usize,
    pub latest: usize,
    /// Names of the attributes that are kept.
    pub attributes: Vec<String>,
    /// Fields of purchases whose sums a full refund takes back.
    pub reversible: Vec<String>,
    pub locals: Vec<Node>,
    pub schemes: Vec<Scheme>,
    pub worth: Option<Node>,
    pub rises: Vec<Rise>,
    pub falls: Vec<Fall>,
    pub steps: Vec<Step>,
    /// Whether an evaluation may come to what only Python knows.
    pub may_fail: bool,
}

impl Node {
    /// Puts locals that are next to nothing into the place of their names.
    fn settle(&mut self, locals: &[Node]) {
        match self {
            Node::Local(place) => {
                if let Some(simple @ (Node::Total(_) | Node::Since(_) | Node::Int(_))) = locals.get(*place) {
                    *self = simple.clone();
                }
            }
            Node::Add(left, right)
            | Node::Subtract(left, right)
            | Node::Multiply(left, right)
            | Node::Divide(left, right)
            | Node::Compare(_, left, right)
            | Node::Same(left, right)
            | Node::Differs(left, right)
            | Node::Ordered(_, left, right) => {
                left.settle(locals);
                right.settle(locals);
            }
            Node::And(nodes) | Node::Or(nodes) => nodes.iter_mut().for_each(|node| node.settle(locals)),
            Node::Not(inner)
            | Node::IsNull(inner)
            | Node::IsTrue(inner)
            | Node::Number(inner)
            | Node::Below(_, inner) => inner.settle(locals),
            Node::If(test, yes, no) => {
                [test, yes, no].into_iter().for_each(|node| node.settle(locals));
                if let Some(score) = self.as_score() {
                    *self = score;
                }
            }
            _ => {}
        }
    }

    /// A score of RFM, if that is what it is: what definitions ask for most.
    fn as_score(&self) -> Option<Node> {
        let Node::If(test, yes, no) = self else { return None };
        let (Node::IsNull(guard), Node::Null) = (&**test, &**yes) else { return None };
        let (first, step, below) = match &**no {
            Node::Add(first, below) => (first, 1, below),
            Node::Subtract(first, below) => (first, -1, below),
            _ => return None,
        };
        let (Node::Int(first), Node::Below(points, of)) = (&**first, &**below) else { return None };
        let points = points.iter().map(|&(n, d)| (d == 1).then_some(n)).collect::<Option<Vec<i64>>>()?;
        Some(Node::Score { guard: guard.clone(), first: *first, step, points, of: of.clone() })
    }
}

impl Plan {
    /// The plan in MessagePack, ready for use.
    pub fn read(data: &[u8]) -> Result<Plan, String> {
        let mut plan: Plan = rmp_serde::from_slice(data).map_err(|error| error.to_string())?;
        plan.settle();
        if plan.locals.len() > MAX_LOCALS {
            return Err("too many features".to_owned());
        }
        Ok(plan)
    }

    /// Makes conditions quicker to evaluate.
    fn settle(&mut self) {
        self.mark = self
            .layout_mark
            .get(..8)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(u32::to_be_bytes)
            .unwrap_or_default();
        for place in 0..self.locals.len() {
            let (before, after) = self.locals.split_at_mut(place);
            after[0].settle(before);
        }
        let locals = &self.locals;
        for scheme in &mut self.schemes {
            scheme.whens.iter_mut().for_each(|node| node.settle(locals));
            scheme.stays.iter_mut().flatten().for_each(|node| node.settle(locals));
            for shown in &mut scheme.values {
                shown.node.settle(locals);
                put_json_text(&mut shown.label, &shown.name);
                shown.label.push(b':');
            }
        }
        self.steps.iter_mut().filter_map(|step| step.difference.as_mut()).for_each(|node| node.settle(locals));
        self.worth.iter_mut().for_each(|node| node.settle(locals));
        for place in 0..self.taps.len() {
            self.taps[place].added = self.added(&self.taps[place]);
        }
    }

    fn added(&self, tap: &Tap) -> Option<Vec<Added>> {
        let forever = tap.first_mark.is_some() || tap.last_mark.is_some() || !tap.forever_sums.is_empty();
        if forever || !tap.forever_extremes.is_empty() {
            return None;
        }
        let mut added = vec![];
        for of in &tap.series {
            for &index in &self.series[of.series].windows {
                let window = &self.windows[index];
                if !window.extremes.is_empty() || self.steps.iter().any(|step| step.windows.contains(&index)) {
                    return None;
                }
                for &(column, slot) in &window.sums {
                    for fall in self.falls.iter().filter(|fall| fall.slot == slot) {
                        added.push(Added { what: of.sums[column], slot, lowest: *fall.limits.first()? });
                    }
                }
            }
        }
        Some(added)
    }

    pub fn taps_of(&self, kind: &str) -> &[usize] {
        self.by_type.iter().find(|(name, _)| name == kind).map_or(&self.engagement, |(_, taps)| taps)
    }
}
