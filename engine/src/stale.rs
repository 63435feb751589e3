//! Customers whose forecasts moved, and are not told yet.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::engine::Key;

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
    marks: HashMap<Key, Mark>,
    queue: VecDeque<(Key, u64)>,
    number: u64,
}

impl Stale {
    pub fn note(&mut self, key: &Key, since: f64, offset: i64) {
        if !self.marks.contains_key(key) {
            self.number += 1;
            self.marks.insert(key.clone(), Mark { since, offset, number: self.number });
            self.queue.push_back((key.clone(), self.number));
        }
    }

    pub fn oldest(&mut self) -> Option<(Key, Mark)> {
        while let Some((key, number)) = self.queue.front() {
            match self.marks.get(key) {
                Some(mark) if mark.number == *number => return Some((key.clone(), *mark)),
                _ => self.queue.pop_front(),
            };
        }
        None
    }

    pub fn forget(&mut self, key: &[u8]) {
        self.marks.remove(key);
    }

    /// Takes the oldest one off, if it is marked since `before` or longer.
    pub fn take(&mut self, before: f64) -> Option<Key> {
        let (key, mark) = self.oldest()?;
        if mark.since > before {
            return None;
        }
        self.queue.pop_front();
        self.marks.remove(&key);
        Some(key)
    }
}
