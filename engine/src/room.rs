//! Room for what a broker sends, filled from Python; its memory is used again once nobody looks at it any more.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// What was let go of, to be used again: new pages have to be cleared, which takes longer than all that is copied.
static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
/// At most so much is kept in all.
const FREE_BYTES: usize = 64 << 20;
/// Sizes are rounded up to whole steps, so that what is free fits what comes.
const STEP: usize = 128 << 10;

fn free() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the smallest that is free and large enough, unless that would waste most of it.
fn take(size: usize) -> Vec<u8> {
    let wanted = size.div_ceil(STEP) * STEP;
    let mut free = free();
    let fitting = free.iter().enumerate().filter(|(_, each)| (wanted..=wanted * 2).contains(&each.len()));
    match fitting.min_by_key(|(_, each)| each.len()).map(|(place, _)| place) {
        Some(place) => free.swap_remove(place),
        None => {
            drop(free);
            vec![0; wanted]
        }
    }
}

fn give(room: Vec<u8>) {
    let mut free = free();
    if free.iter().map(Vec::len).sum::<usize>() + room.len() <= FREE_BYTES {
        free.push(room);
    }
}

/// A writable buffer of `size` bytes. What stands in it at first is of no meaning.
#[pyclass(frozen)]
pub struct Room {
    data: UnsafeCell<Vec<u8>>,
    size: usize,
}

// Its bytes are written by whoever receives them, before anybody is told of them, and never after.
unsafe impl Sync for Room {}

#[pymethods]
impl Room {
    #[new]
    fn new(size: usize) -> Self {
        Room { data: UnsafeCell::new(take(size.max(1))), size }
    }

    fn __len__(&self) -> usize {
        self.size
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let (data, size) = ((*slf.get().data.get()).as_mut_ptr(), slf.get().size as ffi::Py_ssize_t);
        match ffi::PyBuffer_FillInfo(view, slf.as_ptr(), data.cast(), size, 0, flags) {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        give(std::mem::take(self.data.get_mut()));
    }
}
