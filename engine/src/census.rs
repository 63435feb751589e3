//! What the census of customers and their worth gains.

use hashbrown::HashMap;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Worth and customers that the census gains, by segments.
#[derive(Default)]
pub struct Gains(HashMap<Vec<u8>, (i64, i64)>);

impl Gains {
    pub fn add(&mut self, segments: &[u8], worth: i64, customers: i64) {
        let gain = self.0.entry_ref(segments).or_default();
        gain.0 += worth;
        gain.1 += customers;
    }

    pub fn change(&mut self, before: &[u8], was: i64, segments: &[u8], worth: i64) {
        if (before, was) != (segments, worth) {
            self.add(before, -was, -1);
            self.add(segments, worth, 1);
        }
    }

    pub fn list(self, py: Python) -> Vec<(Bound<PyBytes>, i64, i64)> {
        self.0
            .into_iter()
            .map(|(segments, (worth, customers))| (PyBytes::new(py, &segments), worth, customers))
            .collect()
    }
}
