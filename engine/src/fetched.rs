//! What a fetch of one partition brought, as the broker sent it: no object is made of a record before Python asks.

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use crate::pool::Pool;
use crate::records::{
    ATTRIBUTES, COUNT, CRC, FIRST_TIME, HEAD, LAST_OFFSET, LAST_TIME, LEADER_EPOCH, LENGTH, MAGIC, PRODUCER, XERIAL,
};
use crate::wire::be;

const CODEC: u16 = 7;
const PLAIN: u16 = 0;
const SNAPPY: u16 = 2;
const APPEND_TIME: u16 = 8;
const TRANSACTIONAL: u16 = 16;
const CONTROL: u16 = 32;
/// The type of a marker that ends a transaction which never happened.
const ABORT: [u8; 2] = [0, 0];
/// Of what such streams of snappy begin with only this much is the same for all.
const XERIAL_MARK: usize = 8;
const XERIAL_HEAD: usize = XERIAL.len();

/// From so many bytes on others may run Python meanwhile.
const LARGE: usize = 256 << 10;

/// No record is smaller, in bytes.
const LEAST: usize = 7;

/// Where bytes stand in a piece.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

const NULL: Span = Span { start: u32::MAX, end: u32::MAX };

#[derive(Clone, Copy)]
pub struct Place {
    piece: u32,
    offset: i64,
    timestamp: i64,
    key: Span,
    value: Span,
    headers: Span,
}

/// What records stand in.
enum Piece {
    Sent(Arc<PyBuffer<u8>>),
    Unpacked(Arc<Vec<u8>>),
}

struct Batches {
    pieces: Vec<Piece>,
    places: Vec<Place>,
}

/// Places of what was let go of.
static PLACES: Pool<Vec<Place>> = Pool::new(16 << 20);

/// What records stand in, to be looked at while other threads run Python: bytes do not change.
pub struct View<'a> {
    pieces: Vec<&'a [u8]>,
    places: &'a [Place],
}

impl<'a> View<'a> {
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn raw(&self, place: usize) -> Raw<'a> {
        let at = &self.places[place];
        let piece = self.pieces[at.piece as usize];
        Raw { offset: at.offset, key: at.key.of(piece), value: at.value.of(piece) }
    }
}

impl Piece {
    fn shared(&self) -> Piece {
        match self {
            Piece::Sent(data) => Piece::Sent(data.clone()),
            Piece::Unpacked(data) => Piece::Unpacked(data.clone()),
        }
    }
}

impl Batches {
    /// Room for so many places.
    fn with(pieces: Vec<Piece>, places: usize) -> Self {
        let known = PLACES.take(places * size_of::<Place>());
        Batches { pieces, places: known.unwrap_or_else(|| Vec::with_capacity(places)) }
    }

    fn piece(&self, piece: u32) -> &[u8] {
        match &self.pieces[piece as usize] {
            Piece::Sent(data) => bytes(data),
            Piece::Unpacked(data) => data,
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        PLACES.give(places);
    }
}

/// What stands in a buffer that nobody writes to any more.
fn bytes(buffer: &PyBuffer<u8>) -> &[u8] {
    // It is contiguous: read() has looked. Until the buffer is let go of, it stays where it is.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) }
}

/// A record whose bytes are looked at where they stand.
pub struct Raw<'a> {
    pub offset: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Records in the order of their offsets; a part of them shares what they stand in.
#[pyclass(frozen, sequence)]
pub struct Fetched {
    batches: Arc<Batches>,
    start: usize,
    end: usize,
    #[pyo3(get)]
    next_offset: i64,
}

impl Fetched {
    fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn view(&self) -> View<'_> {
        let batches = &*self.batches;
        View {
            pieces: (0..batches.pieces.len() as u32).map(|piece| batches.piece(piece)).collect(),
            places: &batches.places[self.start..self.end],
        }
    }
}

#[pymethods]
impl Fetched {
    /// Reads record batches, of any buffer that does not change any more. `start`: what stands before it was not asked for. `aborted`: producers, and the offsets
    /// from which on transactions of theirs were aborted. None if it takes aiokafka to read this, or to say why nobody
    /// can: batches older than version 2, compression other than snappy, a wrong checksum.
    #[staticmethod]
    fn read(data: &Bound<'_, PyAny>, start: i64, mut aborted: Vec<(i64, i64)>) -> PyResult<Option<Fetched>> {
        aborted.sort_by_key(|&(_, first)| first);
        let buffer = Arc::new(PyBuffer::get(data)?);
        if !buffer.is_c_contiguous() {
            return Err(PyValueError::new_err("what was sent does not stand in one piece"));
        }
        let sent = bytes(&buffer);
        let mut reading = Reading {
            batches: Batches::with(vec![Piece::Sent(buffer.clone())], promised(sent)),
            next: start,
            aborted,
            taken: 0,
            aborting: HashSet::new(),
        };
        let is_read = if sent.len() < LARGE { reading.read(sent) } else { data.py().detach(|| reading.read(sent)) };
        let end = reading.batches.places.len();
        Ok(is_read.map(|()| Fetched { batches: Arc::new(reading.batches), start: 0, end, next_offset: reading.next }))
    }

    /// Some in one, in their order; the records themselves are not copied. There has to be one at least.
    #[staticmethod]
    fn joined(parts: Vec<PyRef<Fetched>>) -> PyResult<Fetched> {
        let next_offset = parts.last().ok_or_else(|| PyValueError::new_err("there is nothing to join"))?.next_offset;
        let mut joined = Batches::with(vec![], parts.iter().map(|part| part.len()).sum());
        for part in &parts {
            let before = joined.pieces.len() as u32;
            joined.pieces.extend(part.batches.pieces.iter().map(|piece| piece.shared()));
            let places = part.batches.places[part.start..part.end].iter();
            joined.places.extend(places.map(|place| Place { piece: before + place.piece, ..*place }));
        }
        let end = joined.places.len();
        Ok(Fetched { batches: Arc::new(joined), start: 0, end, next_offset })
    }

    fn __len__(&self) -> usize {
        self.len()
    }

    fn __getitem__(&self, index: isize) -> PyResult<FetchedRecord> {
        let place = if index < 0 { self.len().wrapping_add_signed(index) } else { index as usize };
        if place >= self.len() {
            return Err(PyIndexError::new_err("there are not so many records"));
        }
        Ok(FetchedRecord { batches: self.batches.clone(), place: self.start + place })
    }

    /// Those from `start` on, at most `most`.
    fn part(&self, start: usize, most: usize) -> Fetched {
        let begin = self.end.min(self.start + start);
        let end = self.end.min(begin.saturating_add(most));
        let following = if end == self.end { None } else { self.batches.places.get(end) };
        let next_offset = following.map_or(self.next_offset, |place| place.offset);
        Fetched { batches: self.batches.clone(), start: begin, end, next_offset }
    }
}

/// One of them.
#[pyclass(frozen)]
pub struct FetchedRecord {
    batches: Arc<Batches>,
    place: usize,
}

impl FetchedRecord {
    fn at(&self) -> &Place {
        &self.batches.places[self.place]
    }

    fn bytes<'py>(&self, py: Python<'py>, span: Span) -> Option<Bound<'py, PyBytes>> {
        span.of(self.batches.piece(self.at().piece)).map(|data| PyBytes::new(py, data))
    }
}

#[pymethods]
impl FetchedRecord {
    #[getter]
    fn offset(&self) -> i64 {
        self.at().offset
    }

    /// Milliseconds; of the append if that is what the topic keeps.
    #[getter]
    fn timestamp(&self) -> i64 {
        self.at().timestamp
    }

    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.bytes(py, self.at().key)
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.bytes(py, self.at().value)
    }

    /// Names and contents; what is not UTF-8 in a name is replaced.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let data = self.at().headers.of(self.batches.piece(self.at().piece)).unwrap_or(&[]);
        let mut cursor = Cursor { data, at: 0 };
        let count = cursor.varint().unwrap_or(0);
        for _ in 0..count {
            let (Some(name), Some(content)) = (cursor.sized(), cursor.sized()) else { break };
            let name = String::from_utf8_lossy(cursor.at(name).unwrap_or(&[]));
            list.append((PyString::new(py, &name), cursor.at(content).map(|data| PyBytes::new(py, data))))?;
        }
        Ok(list)
    }
}

/// How many records the heads of batches speak of; no more than there is room for, of records that are not compressed.
fn promised(data: &[u8]) -> usize {
    let (mut count, mut at) = (0, 0);
    while data.len() - at >= HEAD {
        count += i32::from_be_bytes(be(data, at + COUNT)).max(0) as usize;
        at += LEADER_EPOCH + i32::from_be_bytes(be(data, at + LENGTH)).max(0) as usize;
        at = at.min(data.len());
    }
    count.min(data.len() / LEAST)
}

struct Reading {
    batches: Batches,
    /// The offset after all that was read.
    next: i64,
    aborted: Vec<(i64, i64)>,
    /// How many of the aborted have begun.
    taken: usize,
    /// Producers amid a transaction that was aborted.
    aborting: HashSet<i64>,
}

impl Reading {
    /// Reads all batches that are whole: the last one may be cut off.
    fn read(&mut self, data: &[u8]) -> Option<()> {
        let mut at = 0;
        while data.len() - at >= LEADER_EPOCH {
            let length = usize::try_from(i32::from_be_bytes(be(data, at + LENGTH))).ok()?;
            let end = at + LEADER_EPOCH + length;
            if end > data.len() {
                break;
            }
            let batch = &data[at..end];
            if batch.len() < HEAD
                || batch[MAGIC] != 2
                || crc32c::crc32c(&batch[ATTRIBUTES..]) != u32::from_be_bytes(be(batch, CRC))
            {
                return None;
            }
            self.read_batch(batch, at)?;
            at = end;
        }
        Some(())
    }

    fn read_batch(&mut self, batch: &[u8], at: usize) -> Option<()> {
        let base = i64::from_be_bytes(be(batch, 0));
        let attributes = u16::from_be_bytes(be(batch, ATTRIBUTES));
        let after = base.checked_add(i64::from(i32::from_be_bytes(be(batch, LAST_OFFSET))))?.checked_add(1)?;
        let producer = i64::from_be_bytes(be(batch, PRODUCER));
        let is_void = self.is_void(batch, base, attributes, producer)?;
        if !is_void {
            match attributes & CODEC {
                PLAIN => self.read_records(batch, &batch[HEAD..], 0, at + HEAD, base)?,
                SNAPPY => {
                    let unpacked = unpack(&batch[HEAD..])?;
                    let piece = self.batches.pieces.len() as u32;
                    self.read_records(batch, &unpacked, piece, 0, base)?;
                    self.batches.pieces.push(Piece::Unpacked(Arc::new(unpacked)));
                }
                _ => return None,
            }
        }
        self.next = self.next.max(after);
        Some(())
    }

    /// Whether a batch has no events: a marker, or of a transaction that never happened.
    fn is_void(&mut self, batch: &[u8], base: i64, attributes: u16, producer: i64) -> Option<bool> {
        while let Some(&(aborted, first)) = self.aborted.get(self.taken).filter(|(_, first)| *first <= base) {
            debug_assert!(first <= base);
            self.aborting.insert(aborted);
            self.taken += 1;
        }
        if attributes & CONTROL != 0 {
            let mut cursor = Cursor { data: &batch[HEAD..], at: 0 };
            let (key, _, _, _) = cursor.record()?;
            if cursor.at(key)?.get(2..4)? == ABORT {
                self.aborting.remove(&producer);
            }
            return Some(true);
        }
        Some(attributes & TRANSACTIONAL != 0 && self.aborting.contains(&producer))
    }

    /// Notes where the records of a batch stand: `shift` bytes behind the beginning of the piece.
    fn read_records(&mut self, batch: &[u8], body: &[u8], piece: u32, shift: usize, base: i64) -> Option<()> {
        let by_append = u16::from_be_bytes(be(batch, ATTRIBUTES)) & APPEND_TIME != 0;
        let (first, last) = (i64::from_be_bytes(be(batch, FIRST_TIME)), i64::from_be_bytes(be(batch, LAST_TIME)));
        let mut cursor = Cursor { data: body, at: 0 };
        for _ in 0..i32::from_be_bytes(be(batch, COUNT)) {
            let (key, value, headers, (time, delta)) = cursor.record()?;
            let offset = base.checked_add(delta)?;
            if offset < self.next {
                continue;
            }
            let timestamp = if by_append { last } else { first.checked_add(time)? };
            let [key, value, headers] = [key, value, headers].map(|span| span.shifted(shift));
            self.batches.places.push(Place { piece, offset, timestamp, key: key?, value: value?, headers: headers? });
        }
        (cursor.at == body.len()).then_some(())
    }
}

impl Span {
    fn of(self, piece: &[u8]) -> Option<&[u8]> {
        piece.get(self.start as usize..self.end as usize)
    }

    fn shifted(self, shift: usize) -> Option<Span> {
        if self.start == NULL.start {
            return Some(self);
        }
        let shift = u32::try_from(shift).ok()?;
        Some(Span { start: self.start.checked_add(shift)?, end: self.end.checked_add(shift)? })
    }
}

/// Unpacks snappy, with or without the frames of Java's streams.
pub fn unpack(data: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    if data.len() < XERIAL_HEAD || data[..XERIAL_MARK] != XERIAL[..XERIAL_MARK] {
        return decoder.decompress_vec(data).ok();
    }
    let mut unpacked = Vec::with_capacity(data.len() * 3);
    let mut rest = &data[XERIAL_HEAD..];
    while !rest.is_empty() {
        let (size, after) = rest.split_first_chunk::<4>()?;
        let (block, after) = after.split_at_checked(u32::from_be_bytes(*size) as usize)?;
        let start = unpacked.len();
        unpacked.resize(start + snap::raw::decompress_len(block).ok()?, 0);
        decoder.decompress(block, &mut unpacked[start..]).ok()?;
        rest = after;
    }
    Some(unpacked)
}

/// Reads what is written in varints.
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

type Parts = (Span, Span, Span, (i64, i64));

impl<'a> Cursor<'a> {
    /// Key, value and headers of the next record, and how much later than the first its time and its offset are.
    fn record(&mut self) -> Option<Parts> {
        let length = usize::try_from(self.varint()?).ok()?;
        let end = self.at.checked_add(length).filter(|&end| end <= self.data.len())?;
        self.at += 1; // no attributes are in use
        let (time, offset) = (self.varint()?, self.varint()?);
        let (key, value) = (self.sized()?, self.sized()?);
        let headers = Span { start: u32::try_from(self.at).ok()?, end: u32::try_from(end).ok()? };
        (self.at <= end).then_some(())?;
        self.at = end;
        Some((key, value, headers, (time, offset)))
    }

    #[inline]
    fn varint(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *self.data.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    /// Bytes behind their length, which is below zero where there are none.
    #[inline]
    fn sized(&mut self) -> Option<Span> {
        let length = self.varint()?;
        if length < 0 {
            return Some(NULL);
        }
        let start = self.at;
        let end = start.checked_add(usize::try_from(length).ok()?).filter(|&end| end <= self.data.len())?;
        self.at = end;
        Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    fn at(&self, span: Span) -> Option<&'a [u8]> {
        self.data.get(span.start as usize..span.end as usize)
    }
}
