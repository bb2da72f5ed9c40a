//! The subset of CBOR that control messages use, strict in both directions (RFC 8949 §4.2.1).
//!
//! Unsigned integers, byte strings, text, arrays, and maps whose keys are unsigned integers in strictly ascending order,
//! with every integer and length in its shortest form. All else is refused, even in skipped values: a message has one
//! encoding.

use super::Malformed;

/// Maximum nesting of arrays and maps; the outermost is 1.
pub const MAX_DEPTH: u8 = 4;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const INDEFINITE: u8 = 31;

/// Reads consecutive values from a slice.
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

    /// Finishes; leftover bytes are an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::LeftOver) }
    }

    /// Reads an unsigned integer that must fit `T`.
    pub fn unsigned<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        let value = self.expect(UNSIGNED)?;
        T::try_from(value).map_err(|_| Malformed::OutOfRange)
    }

    /// Reads a byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.expect(BYTES)?;
        self.take(length)
    }

    /// Reads a text string.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.expect(TEXT)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed::NotUtf8)
    }

    /// Reads an array; each call of `element` reads exactly one value.
    pub fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.expect(ARRAY)?;
        self.enter()?;
        for _ in 0..count {
            element(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a map; `field` gets each key and reads exactly one value.
    pub fn map(
        &mut self,
        mut field: impl FnMut(u64, &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.expect(MAP)?;
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

    /// Skips a value of any type, with the same checks as reading it.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let first = self.rest.first().ok_or(Malformed::Truncated)?;
        match first >> 5 {
            UNSIGNED => self.unsigned::<u64>().map(drop),
            BYTES => self.bytes().map(drop),
            TEXT => self.text().map(drop),
            ARRAY => self.array(|element| element.skip()),
            MAP => self.map(|_, value| value.skip()),
            _ => Err(Malformed::Unsupported),
        }
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

    /// Reads the next item's major type and argument.
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

/// Appends values to a buffer. The caller ensures ascending keys and the counts of arrays.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the map begins.
    map: usize,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, map: 0 }
    }

    /// Appends an unsigned integer.
    pub fn unsigned(&mut self, value: impl Into<u64>) -> &mut Self {
        self.head(UNSIGNED, value.into())
    }

    /// Appends a byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
        self
    }

    /// Appends a text string.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    /// Begins an array of `count` values, which follow.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// Begins a map of the keys that follow, fewer than 24.
    pub fn map(&mut self) -> &mut Self {
        self.map = self.out.len();
        self.head(MAP, 0)
    }

    /// Appends a key of the map; its value follows.
    pub fn key(&mut self, key: u64) -> &mut Self {
        self.out[self.map] += 1;
        self.unsigned(key)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_in_their_shortest_form_and_read_back() {
        let cases: [(u64, &[u8]); 10] = [
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 24]),
            (255, &[0x18, 255]),
            (256, &[0x19, 1, 0]),
            (65535, &[0x19, 255, 255]),
            (65536, &[0x1a, 0, 1, 0, 0]),
            (0xffff_ffff, &[0x1a, 255, 255, 255, 255]),
            (0x1_0000_0000, &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
            (u64::MAX, &[0x1b, 255, 255, 255, 255, 255, 255, 255, 255]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            Writer::new(&mut out).unsigned(value);
            assert_eq!(out, bytes, "{value}");
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.unsigned(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn everything_outside_the_subset_is_refused() {
        let cases: [(&[u8], Malformed); 27] = [
            (&[], Malformed::Truncated),
            (&[0x18], Malformed::Truncated),
            (&[0x19, 1], Malformed::Truncated),
            (&[0x42, 0], Malformed::Truncated),
            (&[0x82, 0], Malformed::Truncated),
            (&[0xa1, 0], Malformed::Truncated),
            (&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], Malformed::Truncated),
            (&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], Malformed::Truncated),
            (&[0x18, 23], Malformed::NotShortest),
            (&[0x19, 0, 255], Malformed::NotShortest),
            (&[0x1a, 0, 0, 255, 255], Malformed::NotShortest),
            (&[0x1b, 0, 0, 0, 0, 255, 255, 255, 255], Malformed::NotShortest),
            (&[0x58, 1, 0], Malformed::NotShortest),
            (&[0x5f, 0x41, 0, 0xff], Malformed::Indefinite),
            (&[0x7f, 0xff], Malformed::Indefinite),
            (&[0x9f, 0xff], Malformed::Indefinite),
            (&[0xbf, 0xff], Malformed::Indefinite),
            (&[0x20], Malformed::Unsupported),
            (&[0xc0, 0x00], Malformed::Unsupported),
            (&[0xf5], Malformed::Unsupported),
            (&[0xf9, 0, 0], Malformed::Unsupported),
            (&[0x1c], Malformed::Unsupported),
            (&[0x1f], Malformed::Unsupported),
            (&[0x61, 0xff], Malformed::NotUtf8),
            (&[0xa2, 1, 0, 1, 0], Malformed::KeyOrder),
            (&[0xa2, 1, 0, 0, 0], Malformed::KeyOrder),
            (&[0xa1, 0x60, 0], Malformed::WrongType),
        ];
        for (bytes, wrong) in cases {
            assert_eq!(Reader::new(bytes).skip(), Err(wrong), "{bytes:02x?}");
        }
    }

    #[test]
    fn four_levels_are_read_and_five_are_not() {
        assert_eq!(Reader::new(&[0x81, 0xa1, 0, 0x81, 0x81, 7]).skip(), Ok(()));
        assert_eq!(Reader::new(&[0x81, 0xa1, 0, 0x81, 0x81, 0x80]).skip(), Err(Malformed::TooDeep));
        let siblings = [0x82, 0x81, 0x81, 0x80, 0x81, 0x81, 0x80];
        assert_eq!(Reader::new(&siblings).skip(), Ok(()), "depth is not a count of containers");
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        assert_eq!(Reader::new(&[0x40]).unsigned::<u8>(), Err(Malformed::WrongType));
        assert_eq!(Reader::new(&[0x60]).bytes(), Err(Malformed::WrongType));
        assert_eq!(Reader::new(&[0x40]).text(), Err(Malformed::WrongType));
        assert_eq!(Reader::new(&[0xa0]).array(|_| Ok(())), Err(Malformed::WrongType));
        assert_eq!(Reader::new(&[0x80]).map(|_, _| Ok(())), Err(Malformed::WrongType));
    }

    #[test]
    fn a_number_too_large_for_its_place_is_refused() {
        assert_eq!(Reader::new(&[0x19, 1, 0]).unsigned::<u8>(), Err(Malformed::OutOfRange));
    }

    #[test]
    fn bytes_after_the_value_are_left_over() {
        let mut reader = Reader::new(&[0x01, 0x02]);
        assert_eq!(reader.unsigned(), Ok(1u8));
        assert_eq!(reader.finish(), Err(Malformed::LeftOver));
    }
}
