//! Customers whose forecasts moved, and are not told yet.

use std::collections::VecDeque;

use crate::states::Number;

/// Since when a customer's forecast is not told (seconds), and the lowest offset of its state.
#[derive(Clone, Copy)]
pub struct Mark {
    pub since: f64,
    pub offset: i64,
    number: Number,
    serial: u32,
}

/// Customers whose forecasts moved, the oldest first.
#[derive(Default)]
pub struct Stale {
    queue: VecDeque<Mark>,
    /// By number: which mark is in force; 0 if none is.
    serials: Vec<u32>,
    last: u32,
}

impl Stale {
    pub fn note(&mut self, number: Number, since: f64, offset: i64) {
        let place = number as usize;
        if place >= self.serials.len() {
            self.serials.resize(place + 1, 0);
        }
        if self.serials[place] == 0 {
            self.last = self.last.wrapping_add(1).max(1);
            self.serials[place] = self.last;
            self.queue.push_back(Mark { since, offset, number, serial: self.last });
        }
    }

    pub fn has(&self, number: Number) -> bool {
        self.serials.get(number as usize).is_some_and(|&serial| serial != 0)
    }

    /// The oldest mark in force.
    pub fn oldest(&mut self) -> Option<Mark> {
        while let Some(&mark) = self.queue.front() {
            if self.serials[mark.number as usize] == mark.serial {
                return Some(mark);
            }
            self.queue.pop_front();
        }
        None
    }

    /// How many marks there are since `before` or longer, those not in force any more among them.
    pub fn due(&self, before: f64) -> usize {
        self.queue.partition_point(|mark| mark.since <= before)
    }

    pub fn forget(&mut self, number: Number) {
        if let Some(serial) = self.serials.get_mut(number as usize) {
            *serial = 0;
        }
    }

    /// Takes the oldest one off, if it is marked since `before` or longer.
    pub fn take(&mut self, before: f64) -> Option<Number> {
        let mark = self.oldest().filter(|mark| mark.since <= before)?;
        self.queue.pop_front();
        self.forget(mark.number);
        Some(mark.number)
    }

    /// Those whose turn comes next, about.
    pub fn next(&self) -> impl Iterator<Item = Number> + Clone + '_ {
        self.queue.iter().map(|mark| mark.number)
    }
}
