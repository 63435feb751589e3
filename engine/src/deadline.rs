//! The deadlines of all customers under one clock.

use crate::states::{Number, Table};
use crate::time::NEVER;

/// A deadline on the heap, in twelve bytes: the instant's upper and lower half, and the customer.
#[derive(Clone, Copy)]
struct Deadline {
    high: u32,
    low: u32,
    number: Number,
}

impl Deadline {
    fn new(at: i64, number: Number) -> Self {
        Deadline { high: (at >> 32) as u32, low: at as u32, number }
    }

    fn at(self) -> i64 {
        i64::from(self.high) << 32 | i64::from(self.low)
    }

    /// The earliest comes first; of one instant the customers in order.
    fn is_before(self, other: Deadline, names: &Table) -> bool {
        match (self.high, self.low).cmp(&(other.high, other.low)) {
            std::cmp::Ordering::Equal => names.key(self.number) < names.key(other.number),
            order => order.is_lt(),
        }
    }
}

/// When time may change a customer, and the earliest deadline of it that is on the heap.
#[derive(Clone, Copy)]
struct Waking {
    wake: i64,
    queued: i64,
}

const NOTHING: Waking = Waking { wake: NEVER, queued: NEVER };

/// The earliest comes first; one that is put off meanwhile is queued again when it comes.
#[derive(Default)]
pub struct Deadlines {
    heap: Vec<Deadline>,
    /// By number.
    waking: Vec<Waking>,
}

impl Deadlines {
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Takes over those of stored customers.
    pub fn expect(&mut self, wakes: &[(i64, Number)], names: &Table) {
        for &(wake, number) in wakes {
            *self.of(number) = Waking { wake, queued: wake };
        }
        self.heap = wakes.iter().map(|&(wake, number)| Deadline::new(wake, number)).collect();
        for place in (0..self.heap.len() / 2).rev() {
            self.sink(place, names);
        }
    }

    /// Takes the earliest one off; false if it was put off meanwhile.
    pub fn pop(&mut self, names: &Table) -> Option<(i64, Number, bool)> {
        if self.heap.is_empty() {
            return None;
        }
        let first = self.heap.swap_remove(0);
        self.sink(0, names);
        let (due, number) = (first.at(), first.number);
        let is_due = !self.came(due, number, names);
        Some((due, number, is_due))
    }

    pub fn next(&self) -> i64 {
        self.heap.first().map_or(NEVER, |deadline| deadline.at())
    }

    pub fn queue(&mut self, number: Number, wake: i64, names: &Table) {
        let known = self.of(number);
        known.wake = wake;
        if wake < known.queued {
            known.queued = wake;
            self.push(Deadline::new(wake, number), names);
        }
    }

    /// Whether a customer waits for nothing.
    pub fn is_free(&self, number: Number) -> bool {
        self.waking.get(number as usize).is_none_or(|known| known.wake == NEVER && known.queued == NEVER)
    }

    /// Looks at what there is of customers, so that it is at hand; see Table.warm.
    pub fn warm(&self, numbers: impl IntoIterator<Item = Number>) {
        let known = numbers.into_iter().filter_map(|number| self.waking.get(number as usize));
        std::hint::black_box(known.fold(0, |seen, known| seen ^ known.wake));
    }

    fn of(&mut self, number: Number) -> &mut Waking {
        let place = number as usize;
        if place >= self.waking.len() {
            self.waking.resize(place + 1, NOTHING);
        }
        &mut self.waking[place]
    }

    /// A deadline has come off the heap; true if it was put off meanwhile, and is queued again.
    fn came(&mut self, due: i64, number: Number, names: &Table) -> bool {
        let known = self.of(number);
        let put_off = due < known.wake;
        if known.queued <= due {
            known.queued = NEVER;
            if put_off && known.wake != NEVER {
                known.queued = known.wake;
                let again = Deadline::new(known.wake, number);
                self.push(again, names);
            }
        }
        put_off
    }

    // The heap

    fn push(&mut self, deadline: Deadline, names: &Table) {
        self.heap.push(deadline);
        let mut place = self.heap.len() - 1;
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.heap[place].is_before(self.heap[parent], names) {
                break;
            }
            self.heap.swap(place, parent);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize, names: &Table) {
        loop {
            let mut least = 2 * place + 1;
            if least >= self.heap.len() {
                return;
            }
            if least + 1 < self.heap.len() && self.heap[least + 1].is_before(self.heap[least], names) {
                least += 1;
            }
            if !self.heap[least].is_before(self.heap[place], names) {
                return;
            }
            self.heap.swap(place, least);
            place = least;
        }
    }
}
