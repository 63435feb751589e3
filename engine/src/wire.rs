//! MessagePack as `msgspec` writes it: every number in the fewest bytes.

use crate::Unsure;

/// Numbers beyond this are left to Python: sums of a group's events may be added to one below it, and hundreds of such
/// in an expression.
pub const BOUND: i64 = 1 << 52;
/// "None" among numbers that may be none; beyond `BOUND`, so no number of ours.
pub const NONE: i64 = i64::MIN;

/// So many bytes from a place on, which has to be there.
pub fn be<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&data[at..at + N]);
    bytes
}

#[inline]
pub fn put_int(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        match value {
            0..=0x7f => out.push(value as u8),
            0x80..=0xff => out.extend_from_slice(&[0xcc, value as u8]),
            0x100..=0xffff => {
                out.push(0xcd);
                out.extend_from_slice(&(value as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                out.push(0xce);
                out.extend_from_slice(&(value as u32).to_be_bytes());
            }
            _ => {
                out.push(0xcf);
                out.extend_from_slice(&(value as u64).to_be_bytes());
            }
        }
    } else if value >= -0x20 {
        out.push(value as i8 as u8);
    } else if value >= i8::MIN as i64 {
        out.extend_from_slice(&[0xd0, value as i8 as u8]);
    } else if value >= i16::MIN as i64 {
        out.push(0xd1);
        out.extend_from_slice(&(value as i16).to_be_bytes());
    } else if value >= i32::MIN as i64 {
        out.push(0xd2);
        out.extend_from_slice(&(value as i32).to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[inline]
pub fn put_optional(out: &mut Vec<u8>, value: i64) {
    if value == NONE {
        out.push(0xc0);
    } else {
        put_int(out, value);
    }
}

fn put_length(out: &mut Vec<u8>, length: usize, short: Option<u8>, codes: [u8; 2]) {
    if let Some(code) = short {
        if length < 0x100 {
            out.extend_from_slice(&[code, length as u8]);
            return;
        }
    }
    if length < 0x1_0000 {
        out.push(codes[0]);
        out.extend_from_slice(&(length as u16).to_be_bytes());
    } else {
        out.push(codes[1]);
        out.extend_from_slice(&(length as u32).to_be_bytes());
    }
}

#[inline]
pub fn put_array(out: &mut Vec<u8>, length: usize) {
    if length < 16 {
        out.push(0x90 | length as u8);
    } else {
        put_length(out, length, None, [0xdc, 0xdd]);
    }
}

#[inline]
pub fn put_map(out: &mut Vec<u8>, length: usize) {
    if length < 16 {
        out.push(0x80 | length as u8);
    } else {
        put_length(out, length, None, [0xde, 0xdf]);
    }
}

#[inline]
pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_length(out, value.len(), Some(0xc4), [0xc5, 0xc6]);
    out.extend_from_slice(value);
}

#[inline]
pub fn put_text_head(out: &mut Vec<u8>, length: usize) {
    if length < 32 {
        out.push(0xa0 | length as u8);
    } else {
        put_length(out, length, Some(0xd9), [0xda, 0xdb]);
    }
}

#[inline]
pub fn put_text(out: &mut Vec<u8>, value: &str) {
    put_text_head(out, value.len());
    out.extend_from_slice(value.as_bytes());
}

/// A value of somebody's JSON that is kept: the latest of a field, an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    Text(Box<str>),
}

pub fn put_scalar(out: &mut Vec<u8>, value: &Scalar) {
    match value {
        Scalar::Null => out.push(0xc0),
        Scalar::Bool(truth) => out.push(if *truth { 0xc3 } else { 0xc2 }),
        Scalar::Int(number) => put_int(out, *number),
        Scalar::Real(number) => {
            out.push(0xcb);
            out.extend_from_slice(&number.to_be_bytes());
        }
        Scalar::Text(text) => put_text(out, text),
    }
}

/// Reads what this module writes; anything else is for Python to judge.
pub struct Reader<'a> {
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Reader { data }
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unsure> {
        if length > self.data.len() {
            return Err(Unsure);
        }
        let (taken, rest) = self.data.split_at(length);
        self.data = rest;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Unsure> {
        let (&first, rest) = self.data.split_first().ok_or(Unsure)?;
        self.data = rest;
        Ok(first)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Unsure> {
        let (chunk, rest) = self.data.split_first_chunk::<N>().ok_or(Unsure)?;
        self.data = rest;
        Ok(*chunk)
    }

    #[inline]
    fn int_of(&mut self, code: u8) -> Result<i64, Unsure> {
        Ok(match code {
            0..=0x7f => code as i64,
            0xcd => u16::from_be_bytes(self.chunk()?) as i64,
            0xce => u32::from_be_bytes(self.chunk()?) as i64,
            0xcf => i64::try_from(u64::from_be_bytes(self.chunk()?)).map_err(|_| Unsure)?,
            0xcc => self.byte()? as i64,
            0xe0..=0xff => code as i8 as i64,
            0xd0 => self.byte()? as i8 as i64,
            0xd1 => i16::from_be_bytes(self.chunk()?) as i64,
            0xd2 => i32::from_be_bytes(self.chunk()?) as i64,
            0xd3 => i64::from_be_bytes(self.chunk()?),
            _ => return Err(Unsure),
        })
    }

    #[inline]
    fn size(&mut self, bytes: usize) -> Result<usize, Unsure> {
        Ok(match bytes {
            1 => self.byte()? as usize,
            2 => u16::from_be_bytes(self.chunk()?) as usize,
            _ => u32::from_be_bytes(self.chunk()?) as usize,
        })
    }

    /// A number of any size that fits.
    #[inline]
    pub fn int(&mut self) -> Result<i64, Unsure> {
        let code = self.byte()?;
        self.int_of(code)
    }

    /// A number that others may be added to.
    #[inline]
    pub fn bounded(&mut self) -> Result<i64, Unsure> {
        let value = self.int()?;
        if value.unsigned_abs() > BOUND as u64 {
            return Err(Unsure);
        }
        Ok(value)
    }

    #[inline]
    pub fn optional(&mut self) -> Result<i64, Unsure> {
        if self.data.first() == Some(&0xc0) {
            self.data = &self.data[1..];
            return Ok(NONE);
        }
        self.bounded()
    }

    fn length(&mut self, code: u8, fixed: u8, mask: u8, codes: [u8; 2]) -> Result<usize, Unsure> {
        if code & !mask == fixed {
            return Ok((code & mask) as usize);
        }
        if code == codes[0] {
            return self.size(2);
        }
        if code == codes[1] {
            return self.size(4);
        }
        Err(Unsure)
    }

    #[inline]
    pub fn array(&mut self) -> Result<usize, Unsure> {
        let code = self.byte()?;
        self.length(code, 0x90, 0x0f, [0xdc, 0xdd])
    }

    /// The head of an array that must be of this length.
    #[inline]
    pub fn array_of(&mut self, length: usize) -> Result<(), Unsure> {
        if self.array()? == length {
            Ok(())
        } else {
            Err(Unsure)
        }
    }

    #[inline]
    pub fn map(&mut self) -> Result<usize, Unsure> {
        let code = self.byte()?;
        self.length(code, 0x80, 0x0f, [0xde, 0xdf])
    }

    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Unsure> {
        let size = match self.byte()? {
            0xc4 => 1,
            0xc5 => 2,
            0xc6 => 4,
            _ => return Err(Unsure),
        };
        let length = self.size(size)?;
        self.take(length)
    }

    fn text_of(&mut self, code: u8) -> Result<&'a str, Unsure> {
        let length = if code == 0xd9 { self.size(1)? } else { self.length(code, 0xa0, 0x1f, [0xda, 0xdb])? };
        std::str::from_utf8(self.take(length)?).map_err(|_| Unsure)
    }

    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Unsure> {
        let code = self.byte()?;
        self.text_of(code)
    }

    pub fn scalar(&mut self) -> Result<Scalar, Unsure> {
        let code = self.byte()?;
        Ok(match code {
            0xc0 => Scalar::Null,
            0xc2 => Scalar::Bool(false),
            0xc3 => Scalar::Bool(true),
            0xcb => Scalar::Real(f64::from_be_bytes(self.chunk()?)),
            0xa0..=0xbf | 0xd9..=0xdb => Scalar::Text(self.text_of(code)?.into()),
            _ => Scalar::Int(self.int_of(code)?),
        })
    }
}
