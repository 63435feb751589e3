//! An event's JSON, as `streamseg/formats/event_json.py` decodes it: of the plain events that most events are.
//!
//! What is not plain is not decided here: `None` means that Python accepts or rejects it. Nothing panics.

use xxhash_rust::xxh3::xxh3_64;

use crate::time::{DAY, LAST_INSTANT};

const MAX_BYTES: usize = 64 * 1024;
const MAX_TEXT_BYTES: usize = 64;
const MAX_DEPTH: u32 = 32;
/// A number of so many characters, without an exponent, is finite.
const MAX_NUMBER_BYTES: usize = 40;
const MAX_AMOUNT: i64 = 1_000_000_000_000_000;
const MAX_AMOUNT_DIGITS: usize = 15;

/// So many bytes of a hash are remembered of an id or an order.
pub const FINGERPRINT: usize = 6;
pub type Fingerprint = [u8; FINGERPRINT];

/// What the definitions say of money.
pub struct Settings {
    pub currency: String,
    /// Decimals of the currency.
    pub digits: u32,
}

/// An accepted event; its texts are parts of the JSON.
pub struct Event<'a> {
    /// The type.
    pub kind: &'a str,
    pub customer: &'a str,
    /// Milliseconds since 1970.
    pub time: i64,
    /// The id; an event that has none is named by its place.
    pub name: Option<&'a str>,
    /// The digest of the id; zeros if there is none.
    pub fingerprint: Fingerprint,
    /// The digest of the order's id. A purchase without one is its own order; a refund always has one.
    pub order: Option<Fingerprint>,
    /// Minor units of the definitions' currency.
    pub amount: Option<i64>,
    /// The text of the props: a valid JSON object.
    pub props: Option<&'a [u8]>,
    /// The text of a profile event's attributes: a valid JSON object without lists and objects in it.
    pub attributes: Option<&'a [u8]>,
}

/// A value of the props; a text is a part of the JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    True,
    False,
    Int(i64),
    Text(&'a str),
    /// Floats, integers beyond 64 bits, texts with escapes, lists, objects.
    Other,
}

/// The event in `data`, or None if Python has to decide; also for one later than `latest`, if that is given.
pub fn decode<'a>(data: &'a [u8], settings: &Settings, latest: Option<i64>) -> Option<Event<'a>> {
    if data.len() > MAX_BYTES {
        return None;
    }
    let mut reader = Reader::new(std::str::from_utf8(data).ok()?);
    let mut fields = Fields::default();
    reader.blanks();
    reader.object(1, |reader, key| fields.take(key, reader, settings))?;
    reader.blanks();
    if reader.at < data.len() {
        return None;
    }
    fields.event(latest)
}

/// The value of one of the props, of the last one if there are several of the name; None if there is none.
pub fn field<'a>(props: &'a [u8], name: &str) -> Option<Value<'a>> {
    let mut reader = Reader::new(std::str::from_utf8(props).ok()?);
    let mut found = None;
    reader.object(1, |reader, key| {
        if key != name {
            return reader.skip(1);
        }
        found = Some(reader.value()?);
        Some(())
    })?;
    found
}

/// What an event holds, as far as it was read.
#[derive(Default)]
struct Fields<'a> {
    /// A bit for each known key that was there, if only with null.
    seen: u16,
    kind: Option<&'a str>,
    customer: Option<&'a str>,
    time: Option<i64>,
    id: Option<&'a str>,
    order_id: Option<&'a str>,
    amount: Option<i64>,
    props: Option<&'a [u8]>,
    attributes: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, key: &str, reader: &mut Reader<'a>, settings: &Settings) -> Option<()> {
        match key {
            "id" => {
                self.first(1 << 0)?;
                self.id = reader.nullable(Reader::id)?;
            }
            "type" => {
                self.first(1 << 1)?;
                self.kind = Some(reader.id()?);
            }
            "customer_id" => {
                self.first(1 << 2)?;
                self.customer = Some(reader.id()?);
            }
            "time" => {
                self.first(1 << 3)?;
                self.time = Some(reader.time()?);
            }
            "props" => {
                self.first(1 << 4)?;
                self.props = reader.nullable(Reader::props)?;
            }
            "order_id" => {
                self.first(1 << 5)?;
                self.order_id = reader.nullable(Reader::id)?;
            }
            "amount" => {
                self.first(1 << 6)?;
                self.amount = reader.nullable(|reader| reader.amount(settings.digits))?;
            }
            "currency" => {
                self.first(1 << 7)?;
                let currency = reader.nullable(Reader::printable)?;
                if currency.is_some_and(|currency| currency != settings.currency) {
                    return None;
                }
            }
            "attributes" => {
                self.first(1 << 8)?;
                self.attributes = reader.nullable(Reader::props)?;
            }
            _ => reader.skip(1)?,
        }
        Some(())
    }

    fn first(&mut self, bit: u16) -> Option<()> {
        if self.seen & bit != 0 {
            return None;
        }
        self.seen |= bit;
        Some(())
    }

    fn event(self, latest: Option<i64>) -> Option<Event<'a>> {
        let (kind, customer, time) = (self.kind?, self.customer?, self.time?);
        if !is_type(kind) || latest.is_some_and(|latest| time > latest) {
            return None;
        }
        let attributes = if kind == "profile" { Some(flat(self.attributes?)?) } else { None };
        let order = match kind {
            "merge" | "erase" => return None,
            "purchase" => {
                self.amount?;
                self.order_id.map(digest)
            }
            "refund" => Some(digest(self.order_id?)),
            _ => None,
        };
        Some(Event {
            kind,
            customer,
            time,
            name: self.id,
            fingerprint: self.id.map(digest).unwrap_or_default(),
            order,
            amount: self.amount,
            props: self.props,
            attributes,
        })
    }
}

/// The object, if nothing in it is a list or an object.
fn flat(object: &[u8]) -> Option<&[u8]> {
    Reader::new(std::str::from_utf8(object).ok()?).object(1, |reader, _| {
        if matches!(reader.peek()?, b'{' | b'[') {
            return None;
        }
        reader.skip(1)
    })?;
    Some(object)
}

/// The first bytes of a hash, in the order in which Python's `xxh3_64_digest` gives them.
pub fn digest(text: &str) -> Fingerprint {
    let [a, b, c, d, e, f, ..] = xxh3_64(text.as_bytes()).to_be_bytes();
    [a, b, c, d, e, f]
}

fn is_type(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// The characters of texts that end them or need a closer look.
const SPECIAL: [bool; 256] = special(false);
/// The same, and all that is not printable ASCII.
const NOT_PRINTABLE: [bool; 256] = special(true);

const fn special(beyond_ascii: bool) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte == b'"' as usize || byte == b'\\' as usize || beyond_ascii && byte > 0x7e;
        byte += 1;
    }
    table
}

/// Reads JSON as strictly as msgspec does, or more so; every method gives None for what it does not take.
struct Reader<'a> {
    text: &'a str,
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Reader { text, data: text.as_bytes(), at: 0 }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        if !self.data.get(self.at..)?.starts_with(word.as_bytes()) {
            return None;
        }
        self.at += word.len();
        Some(())
    }

    /// An object; `each` is given each of its keys, and has to read the value.
    #[inline]
    fn object(&mut self, depth: u32, mut each: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if depth > MAX_DEPTH {
            return None;
        }
        self.blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let key = self.plain(&SPECIAL)?;
            self.blanks();
            self.expect(b':')?;
            self.blanks();
            each(self, key)?;
            if self.is_last(b'}')? {
                return Some(());
            }
        }
    }

    fn list(&mut self, depth: u32) -> Option<()> {
        self.expect(b'[')?;
        if depth > MAX_DEPTH {
            return None;
        }
        self.blanks();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.skip(depth)?;
            if self.is_last(b']')? {
                return Some(());
            }
        }
    }

    /// Whether what it stands in ends here with `end`; it is before the next value otherwise.
    #[inline]
    fn is_last(&mut self, end: u8) -> Option<bool> {
        self.blanks();
        let byte = self.peek()?;
        self.at += 1;
        if byte == b',' {
            self.blanks();
            return Some(false);
        }
        (byte == end).then_some(true)
    }

    /// Passes a value that stands in something so deep.
    fn skip(&mut self, depth: u32) -> Option<()> {
        match self.peek()? {
            b'"' => self.any_text().map(drop),
            b'{' => self.object(depth + 1, |reader, _| reader.skip(depth + 1)),
            b'[' => self.list(depth + 1),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number().map(drop),
        }
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let value = match self.peek()? {
            b'"' => return Some(self.any_text()?.map_or(Value::Other, Value::Text)),
            b'-' | b'0'..=b'9' => return Some(integer(self.number()?).map_or(Value::Other, Value::Int)),
            b't' => Value::True,
            b'f' => Value::False,
            b'n' => Value::Null,
            _ => Value::Other,
        };
        self.skip(1)?;
        Some(value)
    }

    #[inline]
    fn nullable<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.peek()? == b'n' {
            self.word("null")?;
            return Some(None);
        }
        read(self).map(Some)
    }

    /// A text without any of the special characters within.
    #[inline]
    fn plain(&mut self, special: &[bool; 256]) -> Option<&'a str> {
        self.expect(b'"')?;
        let start = self.at;
        self.at += self.data.get(start..)?.iter().position(|byte| special[usize::from(*byte)])?;
        let text = self.text.get(start..self.at)?;
        self.expect(b'"')?;
        Some(text)
    }

    #[inline]
    fn printable(&mut self) -> Option<&'a str> {
        self.plain(&NOT_PRINTABLE)
    }

    #[inline]
    fn id(&mut self) -> Option<&'a str> {
        self.printable().filter(|text| (1..=MAX_TEXT_BYTES).contains(&text.len()))
    }

    /// Any text: Some(None) if it is one with escapes.
    fn any_text(&mut self) -> Option<Option<&'a str>> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += self.data.get(self.at..)?.iter().position(|byte| SPECIAL[usize::from(*byte)])?;
            match self.data[self.at] {
                b'"' => break,
                b'\\' => self.escape()?,
                _ => return None,
            }
            escaped = true;
        }
        let text = self.text.get(start..self.at)?;
        self.at += 1;
        Some((!escaped).then_some(text))
    }

    /// Passes an escape; zero and halves of surrogate pairs are none here.
    fn escape(&mut self) -> Option<()> {
        let kind = *self.data.get(self.at + 1)?;
        self.at += 2;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let mut code = 0;
                for digit in self.data.get(self.at..self.at + 4)? {
                    code = code << 4 | char::from(*digit).to_digit(16)?;
                }
                self.at += 4;
                (code != 0 && !(0xd800..0xe000).contains(&code)).then_some(())
            }
            _ => None,
        }
    }

    /// A number without an exponent, as it is written.
    fn number(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        let number = self.data.get(start..self.at)?;
        // An exponent, or a digit behind a zero, is nothing that can stand behind a number.
        (number.len() <= MAX_NUMBER_BYTES).then_some(number)
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn time(&mut self) -> Option<i64> {
        if self.peek()? == b'"' {
            return instant(self.printable()?.as_bytes());
        }
        integer(self.number()?).filter(|time| (0..=LAST_INSTANT).contains(time))
    }

    fn amount(&mut self, digits: u32) -> Option<i64> {
        let text = if self.peek()? == b'"' { self.printable()?.as_bytes() } else { self.number()? };
        minor_units(text, digits)
    }

    /// The text of an object.
    fn props(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        self.object(2, |reader, _| reader.skip(2))?;
        self.data.get(start..self.at)
    }
}

/// An integer of JSON's grammar; None for minus zero, and beyond 64 bits.
fn integer(number: &[u8]) -> Option<i64> {
    let (negative, digits) = match number {
        b"-0" => return None,
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value: i64 = 0;
    for digit in digits {
        value = value.checked_mul(10)?.checked_sub(i64::from(decimal(*digit)?))?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

#[inline]
fn decimal(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// Minor units of `12` or `12.5`, with at most so many decimals as the currency has.
fn minor_units(text: &[u8], digits: u32) -> Option<i64> {
    if text.len() > MAX_AMOUNT_DIGITS + 1 {
        return None;
    }
    let (mut value, mut point) = (0, None);
    for (place, byte) in text.iter().enumerate() {
        if *byte == b'.' && point.is_none() {
            point = Some(place);
        } else {
            value = value * 10 + i64::from(decimal(*byte)?);
        }
    }
    let (whole, decimals) = match point {
        Some(place) => (place, text.len() - place - 1),
        None => (text.len(), 0),
    };
    if whole == 0 || whole + decimals > MAX_AMOUNT_DIGITS || point.is_some() && decimals == 0 {
        return None;
    }
    let missing = digits.checked_sub(u32::try_from(decimals).ok()?)?;
    value.checked_mul(10_i64.checked_pow(missing)?).filter(|minor| *minor <= MAX_AMOUNT)
}

/// The instant of `2026-11-21T10:00:00Z` or `2026-11-21T10:00:00.000Z`.
fn instant(text: &[u8]) -> Option<i64> {
    let milliseconds = match text {
        [.., b'Z'] if text.len() == 20 => 0,
        [.., b'.', a, b, c, b'Z'] if text.len() == 24 => pair(b'0', *a)? * 100 + pair(*b, *c)?,
        _ => return None,
    };
    let &[y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2, _, ..] = text else {
        return None;
    };
    let days = days(pair(y1, y2)? * 100 + pair(y3, y4)?, pair(o1, o2)?, pair(d1, d2)?)?;
    let (hour, minute, second) = (pair(h1, h2)?, pair(m1, m2)?, pair(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days * DAY + ((hour * 60 + minute) * 60 + second) * 1_000 + milliseconds)
}

#[inline]
fn pair(tens: u8, ones: u8) -> Option<i64> {
    Some(i64::from(decimal(tens)? * 10 + decimal(ones)?))
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if year < 1970 || day < 1 || day > length {
        return None;
    }
    // Years from March on: the day that a leap year has more is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400;
    Some(before + (153 * month + 2) / 5 + day - 1 - 719_468)
}
