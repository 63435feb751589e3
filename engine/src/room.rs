//! Room for what a broker sends, filled from Python; its memory is used again once nobody looks at it any more.

use std::cell::UnsafeCell;
use std::ffi::c_int;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::pool::Pool;

/// At most so much is kept in all.
static FREE: Pool<Vec<u8>> = Pool::new(64 << 20);
/// Sizes are rounded up to whole steps, so that what is free fits what comes.
const STEP: usize = 128 << 10;

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
        let wanted = size.max(1).div_ceil(STEP) * STEP;
        Room { data: UnsafeCell::new(FREE.take(wanted).unwrap_or_else(|| vec![0; wanted])), size }
    }

    fn __len__(&self) -> usize {
        self.size
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (data, size) = ((*slf.get().data.get()).as_mut_ptr(), slf.get().size);
        show(slf.as_any(), (data, size), false, view, flags)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        FREE.give(std::mem::take(self.data.get_mut()));
    }
}

/// Fills a view of bytes that stay where they are as long as their owner.
pub unsafe fn show(
    owner: &Bound<'_, PyAny>,
    (data, size): (*mut u8, usize),
    is_readonly: bool,
    view: *mut ffi::Py_buffer,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("there is no view to fill"));
    }
    let size = size as ffi::Py_ssize_t;
    match ffi::PyBuffer_FillInfo(view, owner.as_ptr(), data.cast(), size, is_readonly.into(), flags) {
        0 => Ok(()),
        _ => Err(PyErr::fetch(owner.py())),
    }
}
