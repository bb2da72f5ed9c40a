//! The part of CBOR that control messages use, strict in both directions (RFC 8949 §4.2.1).
//!
//! Unsigned integers, byte strings, text, arrays, and maps whose keys are unsigned integers in strictly
//! ascending order; every integer and length in its shortest form. Everything else is refused, in
//! values that are skipped too: one message has exactly one encoding.

use super::Malformed;

/// How deep arrays and maps may lie in each other; the outermost is 1.
pub const MAX_DEPTH: u8 = 4;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const INDEFINITE: u8 = 31;

/// Reads values one after the other from a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, depth: 0 }
    }

    /// Ends the reading; bytes left over are an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::LeftOver) }
    }

    /// Reads an unsigned integer that must fit into `T`.
    pub fn unsigned<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        let value = self.expect(UNSIGNED)?;
        T::try_from(value).map_err(|_| Malformed::OutOfRange)
    }

    /// Reads a byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.expect(BYTES)?;
        self.take(length)
    }

    /// Reads a text.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.expect(TEXT)?;
        self.utf8(length)
    }

    /// Reads an array; `element` reads exactly one value each time it is called.
    pub fn array(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.expect(ARRAY)?;
        self.elements(count, element)
    }

    /// Reads a map; `field` is given each key and reads exactly one value.
    pub fn map(
        &mut self,
        field: impl FnMut(u64, &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.expect(MAP)?;
        self.fields(count, field)
    }

    /// Passes over one value of any type, as strictly as if it were read.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let (major, value) = self.head()?;
        match major {
            UNSIGNED => Ok(()),
            BYTES => self.take(value).map(|_| ()),
            TEXT => self.utf8(value).map(|_| ()),
            ARRAY => self.elements(value, Self::skip),
            MAP => self.fields(value, |_, reader| reader.skip()),
            _ => Err(Malformed::Unsupported),
        }
    }

    fn elements(
        &mut self,
        count: u64,
        mut element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.enter()?;
        for _ in 0..count {
            element(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn fields(
        &mut self,
        count: u64,
        mut field: impl FnMut(u64, &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.enter()?;
        let mut previous = None;
        for _ in 0..count {
            let key = self.unsigned()?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err(Malformed::KeyOrder);
            }
            previous = Some(key);
            field(key, self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Malformed> {
        if self.depth == MAX_DEPTH {
            return Err(Malformed::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    fn expect(&mut self, wanted: u8) -> Result<u64, Malformed> {
        let (major, value) = self.head()?;
        if major == wanted { Ok(value) } else { Err(Malformed::WrongType) }
    }

    fn utf8(&mut self, length: u64) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::NotUtf8)
    }

    /// Major type and argument of the next item.
    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        let (major, info) = (first >> 5, first & 0x1f);
        if !matches!(major, UNSIGNED | BYTES | TEXT | ARRAY | MAP) {
            return Err(Malformed::Unsupported);
        }
        let (width, least) = match info {
            0..24 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            INDEFINITE if major != UNSIGNED => return Err(Malformed::Indefinite),
            _ => return Err(Malformed::Unsupported),
        };
        let value = self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        if value < least { Err(Malformed::NotShortest) } else { Ok((major, value)) }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Appends values to a buffer. The caller keeps keys ascending and counts true.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends an unsigned integer.
    pub fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    /// Appends a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    /// Appends a text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// Begins an array of `count` values, which follow.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// Begins a map of `count` keys, each followed by its value.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(MAP, count as u64)
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let bytes = value.to_be_bytes();
        let (info, width) = match value {
            0..24 => (value as u8, 0),
            24..0x100 => (24, 1),
            0x100..0x1_0000 => (25, 2),
            0x1_0000..0x1_0000_0000 => (26, 4),
            _ => (27, 8),
        };
        self.out.push(major << 5 | info);
        self.out.extend(bytes.iter().skip(8 - width));
        self
    }
}
