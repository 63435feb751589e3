//! Records of one topic-partition, encoded as Kafka's record batches of version 2.
//!
//! All records of a batch have the time at which it is sealed, so a record's bytes are known when it comes.

use std::ffi::c_int;

use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList, PyString};

use crate::fetched::unpack;
use crate::pool::{Holding, Pool};
use crate::room::show;

/// What stands before the records of a batch, in bytes.
pub const HEAD: usize = 61;
/// Where the fields of the head begin that are not the same in every batch.
pub const LENGTH: usize = 8;
pub const LEADER_EPOCH: usize = 12;
pub const MAGIC: usize = 16;
pub const CRC: usize = 17;
pub const ATTRIBUTES: usize = 21;
pub const LAST_OFFSET: usize = 23;
pub const FIRST_TIME: usize = 27;
pub const LAST_TIME: usize = 35;
pub const PRODUCER: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const SEQUENCE: usize = 53;
pub const COUNT: usize = 57;

const PLAIN: u8 = 0;
const SNAPPY: u8 = 2;
/// How Java's snappy streams begin, which is what Kafka's clients read, and how much a block of theirs holds.
pub const XERIAL: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK: usize = 32 << 10;

/// As in streamseg.worker.log: more than what a record, its batch and each of its headers add to their contents.
const RECORD_OVERHEAD: usize = 128;
const HEADER_OVERHEAD: usize = 12;

/// What records were put together in, what compressed them, and batches that were sent.
static BODIES: Pool<Vec<u8>> = Pool::new(16 << 20);
static PACKERS: Pool<Packer> = Pool::new(16 << 20);
static SEALED: Pool<Vec<u8>> = Pool::new(16 << 20);
/// Sizes of batches are rounded up to whole steps, so that what is free fits what comes.
const STEP: usize = 16 << 10;

/// Records that go into one batch, one after the other.
#[derive(Default)]
struct Open {
    count: usize,
    body: Vec<u8>,
}

/// A batch to which nothing more comes: room for its head, and its records.
struct Full {
    count: usize,
    bytes: Vec<u8>,
    is_packed: bool,
}

/// What is to be appended to one topic-partition, in order, cut into batches.
///
/// batch_bytes bounds a batch before compression; a larger record gets a batch of its own. max_record_bytes is for
/// `largest` alone: nothing is refused here. A batch is compressed as soon as it is full, so that much may wait.
#[pyclass]
pub struct Records {
    batch_bytes: usize,
    limit: usize,
    count: usize,
    full: Vec<Full>,
    open: Open,
    packer: Option<Packer>,
    largest: usize,
    largest_key: Vec<u8>,
}

impl Records {
    pub fn new(batch_bytes: usize, max_record_bytes: usize) -> Self {
        Records {
            batch_bytes,
            limit: max_record_bytes.saturating_sub(RECORD_OVERHEAD),
            count: 0,
            full: Vec::new(),
            open: Open::default(),
            packer: None,
            largest: 0,
            largest_key: Vec::new(),
        }
    }

    /// Appends a record. Names of headers are UTF-8.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], &[u8])]) {
        let contents = headers.iter().map(|(name, content)| sized(name.len()) + sized(content.len())).sum::<usize>()
            + varint_size(headers.len() as i64)
            + key.map_or(1, |key| sized(key.len()))
            + value.map_or(1, |value| sized(value.len()));
        self.note_size(key, value, headers);
        let size = self.place(contents);
        let Open { count, body } = &mut self.open;
        if body.capacity() == 0 {
            *body = BODIES.last().unwrap_or_default();
        }
        body.reserve(sized(size));
        write_varint(body, size as i64);
        body.extend_from_slice(&[0, 0]); // no attributes; at the time of the batch
        write_varint(body, *count as i64);
        write_bytes(body, key);
        write_bytes(body, value);
        write_varint(body, headers.len() as i64);
        for (name, content) in headers {
            write_bytes(body, Some(name));
            write_bytes(body, Some(content));
        }
        *count += 1;
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes room for the next record; gives its size without the size itself.
    fn place(&mut self, contents: usize) -> usize {
        let size = |count: usize| 2 + varint_size(count as i64) + contents;
        let Open { count, body } = &self.open;
        if *count > 0 && HEAD + body.len() + sized(size(*count)) >= self.batch_bytes {
            // as aiokafka cuts them
            self.fill();
        }
        size(self.open.count)
    }

    /// Begins the next batch.
    fn fill(&mut self) {
        let Open { count, body } = &mut self.open;
        let packer = self.packer.get_or_insert_with(|| PACKERS.last().unwrap_or_default());
        let (packed, is_packed) = packer.packed(body);
        self.full.push(Full::new(*count, packed, is_packed));
        *count = 0;
        body.clear();
    }

    /// Ends the last batch. What is added after all begins another one.
    pub fn finish(&mut self) {
        if self.open.count > 0 {
            self.fill();
        }
        let Open { mut body, .. } = std::mem::take(&mut self.open);
        body.clear();
        BODIES.give(body);
        if let Some(packer) = self.packer.take() {
            PACKERS.give(packer);
        }
    }

    /// Keeps the key of the largest record; of those that are too large, the first.
    fn note_size(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&[u8], &[u8])]) {
        let size = key.map_or(0, <[u8]>::len)
            + value.map_or(0, <[u8]>::len)
            + headers.iter().map(|(name, content)| name.len() + content.len() + HEADER_OVERHEAD).sum::<usize>();
        if size > self.largest && self.largest <= self.limit {
            self.largest = size;
            self.largest_key.clear();
            self.largest_key.extend_from_slice(key.unwrap_or_default());
        }
    }
}

#[pymethods]
impl Records {
    #[new]
    fn py_new(batch_bytes: usize, max_record_bytes: usize) -> Self {
        Records::new(batch_bytes, max_record_bytes)
    }

    /// Append a record: key, value, names and contents of its headers.
    #[pyo3(name = "push", signature = (key, value, headers = Vec::new()))]
    fn py_push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: Vec<(PyBackedStr, PyBackedBytes)>) {
        let headers: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, content)| (name.as_bytes(), &**content)).collect();
        self.push(key, value, &headers);
    }

    fn __len__(&self) -> usize {
        self.count
    }

    /// Give size (in bytes, as streamseg.worker.log counts) and key of the largest record.
    ///
    /// Of those that are too large, the first; of none, 0 and no bytes.
    #[pyo3(name = "largest")]
    fn py_largest<'py>(&self, py: Python<'py>) -> (usize, Bound<'py, PyBytes>) {
        (self.largest, PyBytes::new(py, &self.largest_key))
    }

    /// Let go of all batches, each of them without its producer.
    ///
    /// The time is that of all records. Compression is "snappy" or "none"; what would become no smaller stays as it
    /// is. Raises ValueError for another compression.
    #[pyo3(name = "seal")]
    fn py_seal(&mut self, timestamp_ms: i64, compression: &str) -> PyResult<Vec<Sealed>> {
        let is_plain = match compression {
            "none" => true,
            "snappy" => false,
            other => return Err(PyValueError::new_err(format!("no compression of this name: {other}"))),
        };
        self.finish();
        std::mem::take(&mut self.full)
            .into_iter()
            .map(|batch| if is_plain && batch.is_packed { batch.unpacked() } else { Ok(batch) })
            .map(|batch| Ok(batch?.sealed(timestamp_ms)))
            .collect()
    }

    /// Give the records as they came: keys, values and headers.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let items = PyList::empty(py);
        for batch in &self.full {
            if batch.is_packed {
                read_items(py, batch.count, &unpacked(batch.body())?, &items)?;
            } else {
                read_items(py, batch.count, batch.body(), &items)?;
            }
        }
        read_items(py, self.open.count, &self.open.body, &items)?;
        Ok(items)
    }
}

fn read_items(py: Python, count: usize, body: &[u8], items: &Bound<PyList>) -> PyResult<()> {
    let mut reader = Reader { rest: body };
    for _ in 0..count {
        items.append(reader.item(py)?)?;
    }
    Ok(())
}

fn unpacked(body: &[u8]) -> PyResult<Vec<u8>> {
    unpack(body).ok_or_else(|| PyValueError::new_err("what was compressed here cannot be read"))
}

/// Compresses, with room that is used again.
#[derive(Default)]
struct Packer {
    encoder: Option<Box<snap::raw::Encoder>>,
    room: Vec<u8>,
}

impl Packer {
    /// The records of a batch compressed, or as they are if they would become no smaller; and which of both.
    fn packed<'a>(&'a mut self, body: &'a [u8]) -> (&'a [u8], bool) {
        let blocks = body.len() / XERIAL_BLOCK;
        let most = snap::raw::max_compress_len(XERIAL_BLOCK) + 4;
        let last = snap::raw::max_compress_len(body.len() % XERIAL_BLOCK) + 4;
        let size = XERIAL.len() + blocks * most + last;
        let encoder = self.encoder.get_or_insert_with(|| Box::new(snap::raw::Encoder::new()));
        let room = &mut self.room;
        if room.len() < size {
            room.resize(size, 0);
        }
        room[..XERIAL.len()].copy_from_slice(XERIAL);
        let mut end = XERIAL.len();
        for block in body.chunks(XERIAL_BLOCK) {
            let size = encoder.compress(block, &mut room[end + 4..]).expect("there is room for the worst case");
            room[end..end + 4].copy_from_slice(&(size as u32).to_be_bytes());
            end += 4 + size;
        }
        if end < body.len() {
            (&room[..end], true)
        } else {
            (body, false)
        }
    }
}

impl Holding for Packer {
    fn bytes(&self) -> usize {
        self.room.capacity()
    }
}

impl Full {
    fn new(count: usize, body: &[u8], is_packed: bool) -> Self {
        let wanted = (HEAD + body.len()).div_ceil(STEP) * STEP;
        let mut bytes = SEALED.take(wanted).unwrap_or_else(|| Vec::with_capacity(wanted));
        bytes.resize(HEAD, 0);
        bytes.extend_from_slice(body);
        Full { count, bytes, is_packed }
    }

    fn body(&self) -> &[u8] {
        &self.bytes[HEAD..]
    }

    fn unpacked(self) -> PyResult<Self> {
        Ok(Full::new(self.count, &unpacked(self.body())?, false))
    }

    /// The batch, without the producer and the checksum.
    fn sealed(self, timestamp_ms: i64) -> Sealed {
        let Full { count, bytes: mut batch, is_packed } = self;
        let length = (batch.len() - LEADER_EPOCH) as i32;
        put(&mut batch, LENGTH, length.to_be_bytes());
        put(&mut batch, LEADER_EPOCH, (-1i32).to_be_bytes());
        put(&mut batch, MAGIC, [2]);
        put(&mut batch, ATTRIBUTES, [0, if is_packed { SNAPPY } else { PLAIN }]);
        put(&mut batch, LAST_OFFSET, (count as i32 - 1).to_be_bytes());
        put(&mut batch, FIRST_TIME, timestamp_ms.to_be_bytes());
        put(&mut batch, LAST_TIME, timestamp_ms.to_be_bytes());
        put(&mut batch, COUNT, (count as i32).to_be_bytes());
        Sealed { count, batch, views: 0 }
    }
}

/// A whole batch; a buffer of its bytes. Its memory is used again once nobody looks at it any more.
#[pyclass]
pub struct Sealed {
    /// How many records it has.
    #[pyo3(get)]
    count: usize,
    batch: Vec<u8>,
    /// How many look at it.
    views: usize,
}

#[pymethods]
impl Sealed {
    fn __len__(&self) -> usize {
        self.batch.len()
    }

    /// Complete it: its producer, its place among what that sends to the partition, its checksum.
    ///
    /// Raises BufferError while somebody looks at it.
    fn stamp(&mut self, producer_id: i64, producer_epoch: i16, sequence: i32) -> PyResult<()> {
        if self.views > 0 {
            return Err(PyBufferError::new_err("somebody looks at this batch: it cannot change"));
        }
        put(&mut self.batch, PRODUCER, producer_id.to_be_bytes());
        put(&mut self.batch, PRODUCER_EPOCH, producer_epoch.to_be_bytes());
        put(&mut self.batch, SEQUENCE, sequence.to_be_bytes());
        let checksum = crc32c::crc32c(&self.batch[ATTRIBUTES..]);
        put(&mut self.batch, CRC, checksum.to_be_bytes());
        Ok(())
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let mut sealed = slf.try_borrow_mut()?;
        let bytes = (sealed.batch.as_mut_ptr(), sealed.batch.len());
        show(slf.as_any(), bytes, true, view, flags)?;
        sealed.views += 1;
        Ok(())
    }

    unsafe fn __releasebuffer__(&mut self, _view: *mut ffi::Py_buffer) {
        self.views -= 1;
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        SEALED.give(batch);
    }
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Records>()?;
    m.add_class::<Sealed>()
}

fn put<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    batch[at..at + N].copy_from_slice(&bytes);
}

/// How many bytes as many bytes take with their number before them.
fn sized(length: usize) -> usize {
    varint_size(length as i64) + length
}

fn varint_size(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn write_varint(body: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        body.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    body.push(rest as u8);
}

fn write_bytes(body: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => write_varint(body, -1),
        Some(bytes) => {
            write_varint(body, bytes.len() as i64);
            body.extend_from_slice(bytes);
        }
    }
}

type Item<'py> =
    (Option<Bound<'py, PyBytes>>, Option<Bound<'py, PyBytes>>, Vec<(Bound<'py, PyString>, Bound<'py, PyBytes>)>);

/// Reads back what `push` wrote.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn item<'py>(&mut self, py: Python<'py>) -> PyResult<Item<'py>> {
        self.varint(); // the size
        self.take(2);
        self.varint(); // the offset
        let key = self.bytes().map(|key| PyBytes::new(py, key));
        let value = self.bytes().map(|value| PyBytes::new(py, value));
        let headers = (0..self.varint())
            .map(|_| {
                let name = std::str::from_utf8(self.bytes().unwrap_or_default())?;
                Ok((PyString::new(py, name), PyBytes::new(py, self.bytes().unwrap_or_default())))
            })
            .collect::<PyResult<_>>()?;
        Ok((key, value, headers))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.varint();
        (length >= 0).then(|| self.take(length as usize))
    }

    fn varint(&mut self) -> i64 {
        let mut value = 0u64;
        for shift in (0..).step_by(7) {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}
