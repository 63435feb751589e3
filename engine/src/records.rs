//! Records of one topic-partition, encoded as Kafka's record batches of version 2.
//!
//! All records of a batch have the time at which it is sealed, so a record's bytes are known when it comes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList, PyString};

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

const SNAPPY: u8 = 2;
/// How Java's snappy streams begin, which is what Kafka's clients read, and how much a block of theirs holds.
pub const XERIAL: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_BLOCK: usize = 32 << 10;

/// Room for the first batch, which grows with what comes.
const FIRST_ROOM: usize = 64 << 10;

/// As in streamseg.worker.log: more than what a record, its batch and each of its headers add to their contents.
const RECORD_OVERHEAD: usize = 128;
const HEADER_OVERHEAD: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Snappy,
}

#[derive(Default)]
struct Batch {
    count: usize,
    body: Vec<u8>,
}

/// What is to be appended to one topic-partition, in order, cut into batches.
///
/// batch_bytes bounds a batch before compression; a larger record gets a batch of its own. max_record_bytes is for
/// `largest` alone: nothing is refused here.
#[pyclass]
pub struct Records {
    batch_bytes: usize,
    limit: usize,
    count: usize,
    batches: Vec<Batch>,
    largest: usize,
    largest_key: Vec<u8>,
}

impl Records {
    pub fn new(batch_bytes: usize, max_record_bytes: usize) -> Self {
        Records {
            batch_bytes,
            limit: max_record_bytes.saturating_sub(RECORD_OVERHEAD),
            count: 0,
            batches: Vec::new(),
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
        let (batch, delta, size) = self.place(contents);
        batch.count += 1;
        let body = &mut batch.body;
        body.reserve(sized(size));
        write_varint(body, size as i64);
        body.extend_from_slice(&[0, 0]); // no attributes; at the time of the batch
        write_varint(body, delta as i64);
        write_bytes(body, key);
        write_bytes(body, value);
        write_varint(body, headers.len() as i64);
        for (name, content) in headers {
            write_bytes(body, Some(name));
            write_bytes(body, Some(content));
        }
        self.count += 1;
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives for each batch how many records it has, and its bytes, to which `stamp` adds the producer.
    pub fn seal(&self, timestamp_ms: i64, compression: Compression) -> Vec<(usize, Vec<u8>)> {
        let mut encoder = snap::raw::Encoder::new();
        let mut room = Vec::new();
        self.batches
            .iter()
            .map(|batch| {
                let sealed = match compression {
                    Compression::None => batch.plain(timestamp_ms),
                    Compression::Snappy => batch.compressed(timestamp_ms, &mut encoder, &mut room),
                };
                (batch.count, sealed)
            })
            .collect()
    }

    /// Finds the batch of the next record; gives its offset within that, and its size without the size itself.
    fn place(&mut self, contents: usize) -> (&mut Batch, usize, usize) {
        let fits = self.batches.last().is_some_and(|batch| {
            let size = 2 + varint_size(batch.count as i64) + contents;
            HEAD + batch.body.len() + sized(size) < self.batch_bytes // as aiokafka cuts them
        });
        if !fits {
            // After a full batch expect another.
            let room = if self.batches.is_empty() { FIRST_ROOM.min(self.batch_bytes) } else { self.batch_bytes };
            self.batches.push(Batch { count: 0, body: Vec::with_capacity(room) });
        }
        let batch = self.batches.last_mut().expect("one was pushed");
        let delta = batch.count;
        (batch, delta, 2 + varint_size(delta as i64) + contents)
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

    /// Give for each batch how many records it has, and its bytes, to which `stamp` adds the producer.
    ///
    /// The time is that of all records. Compression is "snappy" or "none"; what would become no smaller stays as it
    /// is. Raises ValueError for another compression.
    #[pyo3(name = "seal")]
    fn py_seal<'py>(
        &self,
        py: Python<'py>,
        timestamp_ms: i64,
        compression: &str,
    ) -> PyResult<Vec<(usize, Bound<'py, PyBytes>)>> {
        let compression = match compression {
            "none" => Compression::None,
            "snappy" => Compression::Snappy,
            other => return Err(PyValueError::new_err(format!("no compression of this name: {other}"))),
        };
        let sealed = py.detach(|| self.seal(timestamp_ms, compression));
        Ok(sealed.into_iter().map(|(count, bytes)| (count, PyBytes::new(py, &bytes))).collect())
    }

    /// Give the records as they came: keys, values and headers.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let items = PyList::empty(py);
        for batch in &self.batches {
            let mut reader = Reader { rest: &batch.body };
            for _ in 0..batch.count {
                items.append(reader.item(py)?)?;
            }
        }
        Ok(items)
    }
}

impl Batch {
    fn plain(&self, timestamp_ms: i64) -> Vec<u8> {
        let mut batch = Vec::with_capacity(HEAD + self.body.len());
        batch.resize(HEAD, 0);
        batch.extend_from_slice(&self.body);
        self.write_head(&mut batch, timestamp_ms, 0);
        batch
    }

    /// Leaves as it is what would become no smaller.
    fn compressed(&self, timestamp_ms: i64, encoder: &mut snap::raw::Encoder, batch: &mut Vec<u8>) -> Vec<u8> {
        let blocks = self.body.len() / XERIAL_BLOCK;
        let most = snap::raw::max_compress_len(XERIAL_BLOCK) + 4;
        let last = snap::raw::max_compress_len(self.body.len() % XERIAL_BLOCK) + 4;
        let size = HEAD + XERIAL.len() + blocks * most + last;
        if batch.len() < size {
            batch.resize(size, 0);
        }
        batch[HEAD..HEAD + XERIAL.len()].copy_from_slice(XERIAL);
        let mut end = HEAD + XERIAL.len();
        for block in self.body.chunks(XERIAL_BLOCK) {
            let size = encoder.compress(block, &mut batch[end + 4..]).expect("there is room for the worst case");
            batch[end..end + 4].copy_from_slice(&(size as u32).to_be_bytes());
            end += 4 + size;
        }
        if end - HEAD >= self.body.len() {
            return self.plain(timestamp_ms);
        }
        let mut batch = batch[..end].to_vec();
        self.write_head(&mut batch, timestamp_ms, SNAPPY);
        batch
    }

    /// Writes all of the head but the producer and the checksum.
    fn write_head(&self, batch: &mut [u8], timestamp_ms: i64, codec: u8) {
        let length = (batch.len() - LEADER_EPOCH) as i32;
        put(batch, LENGTH, length.to_be_bytes());
        put(batch, LEADER_EPOCH, (-1i32).to_be_bytes());
        put(batch, MAGIC, [2]);
        put(batch, ATTRIBUTES, [0, codec]);
        put(batch, LAST_OFFSET, (self.count as i32 - 1).to_be_bytes());
        put(batch, FIRST_TIME, timestamp_ms.to_be_bytes());
        put(batch, LAST_TIME, timestamp_ms.to_be_bytes());
        put(batch, COUNT, (self.count as i32).to_be_bytes());
    }
}

/// Complete a sealed batch: its producer, its place among what that sends to the partition, its checksum.
///
/// Raises ValueError for what is too short to be a batch.
#[pyfunction]
fn stamp<'py>(
    py: Python<'py>,
    batch: &[u8],
    producer_id: i64,
    producer_epoch: i16,
    sequence: i32,
) -> PyResult<Bound<'py, PyBytes>> {
    if batch.len() < HEAD {
        return Err(PyValueError::new_err("no batch is this short"));
    }
    PyBytes::new_with(py, batch.len(), |bytes| {
        bytes.copy_from_slice(batch);
        put(bytes, PRODUCER, producer_id.to_be_bytes());
        put(bytes, PRODUCER_EPOCH, producer_epoch.to_be_bytes());
        put(bytes, SEQUENCE, sequence.to_be_bytes());
        let checksum = crc32c::crc32c(&bytes[ATTRIBUTES..]);
        put(bytes, CRC, checksum.to_be_bytes());
        Ok(())
    })
}

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<Records>()?;
    m.add_function(wrap_pyfunction!(stamp, m)?)
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
