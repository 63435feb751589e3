//! Customers whose forecasts moved, and are not told yet.

use std::collections::VecDeque;

use hashbrown::hash_map::Entry;
use hashbrown::HashMap;

use crate::states::Number;

/// Since when a customer's forecast is not told (seconds), the lowest offset of its state, and which note this is.
#[derive(Clone, Copy)]
pub struct Mark {
    pub since: f64,
    pub offset: i64,
    number: u64,
}

/// Customers whose forecasts moved, the oldest first.
#[derive(Default)]
pub struct Stale {
    marks: HashMap<Number, Mark>,
    queue: VecDeque<(Number, u64)>,
    number: u64,
}

impl Stale {
    pub fn note(&mut self, number: Number, since: f64, offset: i64) {
        if let Entry::Vacant(vacant) = self.marks.entry(number) {
            self.number += 1;
            vacant.insert(Mark { since, offset, number: self.number });
            self.queue.push_back((number, self.number));
        }
    }

    pub fn has(&self, number: Number) -> bool {
        self.marks.contains_key(&number)
    }

    pub fn oldest(&mut self) -> Option<(Number, Mark)> {
        while let Some(&(customer, number)) = self.queue.front() {
            match self.marks.get(&customer) {
                Some(mark) if mark.number == number => return Some((customer, *mark)),
                _ => self.queue.pop_front(),
            };
        }
        None
    }

    pub fn forget(&mut self, number: Number) {
        self.marks.remove(&number);
    }

    /// Takes the oldest one off, if it is marked since `before` or longer.
    pub fn take(&mut self, before: f64) -> Option<Number> {
        let (number, mark) = self.oldest()?;
        if mark.since > before {
            return None;
        }
        self.queue.pop_front();
        self.marks.remove(&number);
        Some(number)
    }
}
