//! What streamseg's worker and its replay do for every event, without Python.

mod census;
mod deadline;
mod engine;
mod event;
mod event_probe;
mod fetched;
mod group;
mod message;
mod old_state;
mod partition;
mod placement;
mod plan;
mod pool;
mod profile;
mod records;
mod replay;
mod room;
mod segment;
mod stale;
mod state;
mod states;
mod time;
mod value;
mod wire;
mod work;

use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// Profiles, states and messages are made and let go of by the million.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What only Python knows how to do, or what a broken state comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unsure;

#[pymodule]
fn streamseg_engine(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<engine::Engine>()?;
    m.add_class::<fetched::Fetched>()?;
    m.add_class::<fetched::FetchedRecord>()?;
    m.add_class::<replay::Replay>()?;
    m.add_class::<room::Room>()?;
    m.add_class::<states::States>()?;
    m.add_class::<work::Threads>()?;
    m.add_class::<work::Work>()?;
    records::register(m)?;
    event_probe::register(m)
}
