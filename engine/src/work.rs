//! Work that needs nothing of Python, and threads that do it without ever waiting for Python's lock.

use std::any::Any;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::states::locked;

/// Makes what Python gets of what was done.
type Give = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Do = Box<dyn FnOnce() -> Give + Send>;

enum Stage {
    Waits(Do),
    UnderWay,
    Done(Give),
}

/// Something to be done once, here or by one of some threads. It is called for what comes of it.
#[pyclass(frozen)]
pub struct Work(Arc<Mutex<Stage>>);

fn take(stage: &Mutex<Stage>) -> Stage {
    std::mem::replace(&mut *locked(stage), Stage::UnderWay)
}

fn panicked(cause: Box<dyn Any + Send>) -> Give {
    Box::new(|_| resume_unwind(cause))
}

impl Work {
    /// What is to be done, and what is made of it for Python.
    pub fn new<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
        give: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let work: Do = Box::new(move || {
            let made = work();
            Box::new(move |py| give(py, made))
        });
        Work(Arc::new(Mutex::new(Stage::Waits(work))))
    }

    /// What needed Python, and is done already.
    pub fn done(made: Py<PyAny>) -> Self {
        Work(Arc::new(Mutex::new(Stage::Done(Box::new(|_| Ok(made))))))
    }
}

#[pymethods]
impl Work {
    /// Do it, if that is not done yet, and give what comes of it. Raises RuntimeError when called again.
    fn __call__(&self, py: Python) -> PyResult<Py<PyAny>> {
        let give = match take(&self.0) {
            Stage::Waits(work) => py.detach(work),
            Stage::Done(give) => give,
            Stage::UnderWay => return Err(PyRuntimeError::new_err("work is under way, or was given already")),
        };
        give(py)
    }
}

/// What was done and is not taken note of yet. Whoever waits reads a byte when this is no longer empty.
struct Finished {
    numbers: Mutex<Vec<usize>>,
    bell: UnixStream,
}

impl Finished {
    fn add(&self, number: usize) {
        let mut numbers = locked(&self.numbers);
        if numbers.is_empty() {
            // Nobody listens any more if this fails: the process ends.
            let _ = (&self.bell).write(&[0]);
        }
        numbers.push(number);
    }
}

type Given = (usize, Arc<Mutex<Stage>>);

fn serve(given: &Mutex<Receiver<Given>>, finished: &Finished) {
    loop {
        let next = locked(given).recv();
        let Ok((number, stage)) = next else { return };
        let now = match take(&stage) {
            Stage::Waits(work) => Stage::Done(catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)),
            done => done,
        };
        *locked(&stage) = now;
        drop(stage);
        finished.add(number);
    }
}

/// Threads for work. They tell by a file that can be read when some of it is done.
#[pyclass(frozen)]
pub struct Threads {
    given: Mutex<Option<Sender<Given>>>,
    finished: Arc<Finished>,
    ear: UnixStream,
}

#[pymethods]
impl Threads {
    #[new]
    fn new(count: usize) -> PyResult<Self> {
        let (ear, bell) = UnixStream::pair()?;
        ear.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        let finished = Arc::new(Finished { numbers: Mutex::default(), bell });
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..count {
            let (receiver, finished) = (receiver.clone(), finished.clone());
            std::thread::Builder::new()
                .name(format!("streamseg-{number}"))
                .spawn(move || serve(&receiver, &finished))?;
        }
        Ok(Threads { given: Mutex::new(Some(sender)), finished, ear })
    }

    fn fileno(&self) -> i32 {
        self.ear.as_raw_fd()
    }

    /// Have work done, under a number. Raises RuntimeError after `close`.
    fn start(&self, number: usize, work: &Work) -> PyResult<()> {
        let given = locked(&self.given);
        let sent = given.as_ref().map(|given| given.send((number, work.0.clone())));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(PyRuntimeError::new_err("these threads take no more work")),
        }
    }

    /// Give the numbers of what was done since the last call.
    fn finished(&self) -> Vec<usize> {
        let mut heard = [0; 64];
        while matches!((&self.ear).read(&mut heard), Ok(size) if size == heard.len()) {}
        std::mem::take(&mut *locked(&self.finished.numbers))
    }

    /// Take no more work; what was given is done.
    fn close(&self) {
        locked(&self.given).take();
    }
}
