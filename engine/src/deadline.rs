//! The deadlines of all customers under one clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hashbrown::HashMap;

use crate::engine::Key;
use crate::time::NEVER;

/// A deadline on the heap: the earliest first, of one instant the customers in order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Deadline(i64, Key);

/// When time may change a customer, and the earliest deadline of it that is on the heap.
struct Waking {
    wake: i64,
    queued: i64,
}

/// The earliest comes first; one that is put off meanwhile is queued again when it comes.
#[derive(Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<Deadline>>,
    waking: HashMap<Key, Waking>,
}

impl Deadlines {
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Takes over those of stored customers.
    pub fn expect(&mut self, wakes: Vec<(i64, Key)>) {
        for (wake, key) in &wakes {
            self.waking.insert(key.clone(), Waking { wake: *wake, queued: *wake });
        }
        self.heap = wakes.into_iter().map(|(wake, key)| Reverse(Deadline(wake, key))).collect();
    }

    /// Takes the earliest one off; false if it was put off meanwhile.
    pub fn pop(&mut self) -> Option<(i64, Key, bool)> {
        let Reverse(Deadline(due, key)) = self.heap.pop()?;
        let is_due = !self.came(due, &key);
        Some((due, key, is_due))
    }

    pub fn next(&self) -> i64 {
        self.heap.peek().map_or(NEVER, |Reverse(deadline)| deadline.0)
    }

    pub fn queue(&mut self, key: &Key, wake: i64) {
        if wake == NEVER {
            match self.waking.get_mut(key) {
                Some(known) if known.queued != NEVER => known.wake = NEVER,
                Some(_) => drop(self.waking.remove(key)),
                None => {}
            }
            return;
        }
        match self.waking.get_mut(key) {
            Some(known) => {
                known.wake = wake;
                if known.queued <= wake {
                    return;
                }
                known.queued = wake;
            }
            None => {
                self.waking.insert(key.clone(), Waking { wake, queued: wake });
            }
        }
        self.heap.push(Reverse(Deadline(wake, key.clone())));
    }

    /// A deadline has come off the heap; true if it was put off meanwhile, and is queued again.
    fn came(&mut self, due: i64, key: &Key) -> bool {
        let Some(known) = self.waking.get_mut(key) else { return true }; // nothing wakes it any more
        let put_off = due < known.wake;
        if known.queued <= due {
            if known.wake == NEVER {
                self.waking.remove(key);
            } else if put_off {
                known.queued = known.wake;
                let wake = known.wake;
                self.heap.push(Reverse(Deadline(wake, key.clone())));
            } else {
                known.queued = NEVER;
            }
        }
        put_off
    }
}
