//! Datagrams in a byte stream such as a TCP connection (PROTOCOL.md §11): random bytes to anyone without the link secret.
//!
//! ```text
//! salt (16 random) | { length (2, masked) | datagram } …
//! ```

use std::sync::Arc;

use crate::crypto::keys::LinkKeys;

/// Length of the random salt that starts each direction.
pub const SALT: usize = 16;
/// Length of a record's length.
pub const LENGTH: usize = 2;
/// Longest datagram in a stream, in bytes.
pub const RECORD_MAX: usize = 16 * 1024;

/// The input is not a record; the rest of the stream is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the length of a record is out of bounds")]
pub struct Broken;

/// Generates the masks for one direction's lengths, in order.
struct Lengths {
    keys: Arc<LinkKeys>,
    salt: u128,
    records: u128,
}

impl Lengths {
    fn new(keys: Arc<LinkKeys>, salt: [u8; SALT]) -> Self {
        Self { keys, salt: u128::from_be_bytes(salt), records: 0 }
    }

    /// Masks or unmasks the next length.
    fn mask(&mut self, length: [u8; LENGTH]) -> [u8; LENGTH] {
        let mask = self.keys.stream((self.salt ^ self.records).to_be_bytes());
        self.records += 1;
        [length[0] ^ mask[0], length[1] ^ mask[1]]
    }
}

/// The sending side of one direction.
pub struct Writer {
    lengths: Lengths,
    /// Sent before the first record.
    salt: Option<[u8; SALT]>,
}

impl Writer {
    /// Starts a stream; the salt must be random.
    pub fn new(keys: Arc<LinkKeys>, salt: [u8; SALT]) -> Self {
        Self { lengths: Lengths::new(keys, salt), salt: Some(salt) }
    }

    /// Appends a datagram to `out`. Drops one that is empty or longer than [`RECORD_MAX`].
    pub fn write(&mut self, datagram: &[u8], out: &mut Vec<u8>) {
        let Some(length) = u16::try_from(datagram.len()).ok().filter(|_| is_sound(datagram.len())) else {
            return;
        };
        out.extend(self.salt.take().into_iter().flatten());
        out.extend(self.lengths.mask(length.to_be_bytes()));
        out.extend_from_slice(datagram);
    }
}

/// The receiving side of one direction. It buffers no more than its room.
pub struct Reader {
    keys: Arc<LinkKeys>,
    /// Set once the salt has arrived.
    lengths: Option<Lengths>,
    /// Length of the record being read.
    record: Option<usize>,
    buffer: Vec<u8>,
    /// The bytes read but not yet taken.
    held: std::ops::Range<usize>,
    broken: bool,
}

impl Reader {
    /// Room for the longest record.
    pub const LEAST: usize = LENGTH + RECORD_MAX;

    /// Starts a stream with `room` bytes, at least [`Self::LEAST`].
    pub fn new(keys: Arc<LinkKeys>, room: usize) -> Self {
        let buffer = vec![0; room.max(Self::LEAST)];
        Self { keys, lengths: None, record: None, buffer, held: 0..0, broken: false }
    }

    /// Enlarges the room, so that more records can be read at once.
    pub fn grow(&mut self, room: usize) {
        self.buffer.resize(room.max(self.buffer.len()), 0);
    }

    /// Where to put the next bytes of the stream, before [`Self::filled`]. Empty only while a record waits in
    /// [`Self::next`].
    pub fn room(&mut self) -> &mut [u8] {
        if self.held.start > 0 {
            self.buffer.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
        &mut self.buffer[self.held.end..]
    }

    /// Notes that so many bytes were put there.
    pub fn filled(&mut self, length: usize) {
        self.held.end = (self.held.end + length).min(self.buffer.len());
        if self.broken {
            self.held = 0..0;
        }
    }

    /// Returns the next datagram, as scratch space, once it is complete.
    ///
    /// # Errors
    /// [`Broken`], and ever after.
    #[allow(clippy::should_implement_trait, reason = "what it gives lies in its buffer")]
    pub fn next(&mut self) -> Result<Option<&mut [u8]>, Broken> {
        if self.broken {
            return Err(Broken);
        }
        if self.lengths.is_none() {
            let Some(salt) = self.take() else { return Ok(None) };
            self.lengths = Some(Lengths::new(self.keys.clone(), salt));
        }
        let length = match self.record {
            Some(length) => length,
            None => {
                let Some(masked) = self.take() else { return Ok(None) };
                let length = self.lengths.as_mut().map_or([0; LENGTH], |lengths| lengths.mask(masked));
                usize::from(u16::from_be_bytes(length))
            }
        };
        if !is_sound(length) {
            (self.broken, self.held) = (true, 0..0);
            return Err(Broken);
        }
        if self.held.len() < length {
            self.record = Some(length);
            return Ok(None);
        }
        self.record = None;
        let at = self.held.start;
        self.held.start += length;
        Ok(Some(&mut self.buffer[at..at + length]))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.buffer[self.held.clone()].first_chunk().copied()?;
        self.held.start += N;
        Some(bytes)
    }
}

fn is_sound(length: usize) -> bool {
    (1..=RECORD_MAX).contains(&length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::vectors::{hex, vectors};

    fn keys() -> Arc<LinkKeys> {
        Arc::new(LinkKeys::new(&[7; 32]))
    }

    fn written(salt: [u8; SALT], datagrams: &[Vec<u8>]) -> Vec<u8> {
        let (mut writer, mut out) = (Writer::new(keys(), salt), Vec::new());
        datagrams.iter().for_each(|datagram| writer.write(datagram, &mut out));
        out
    }

    /// Reads a stream in pieces of these lengths, repeated, and then the rest.
    fn read(reader: &mut Reader, mut stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, Result<(), Broken>) {
        let (mut datagrams, mut result) = (Vec::new(), Ok(()));
        for piece in pieces.iter().cycle().take(3 * stream.len()).chain([&usize::MAX; 8]) {
            let room = reader.room();
            let length = stream.len().min(*piece).min(room.len());
            room[..length].copy_from_slice(&stream[..length]);
            stream = &stream[length..];
            reader.filled(length);
            loop {
                match reader.next() {
                    Ok(Some(datagram)) => datagrams.push(datagram.to_vec()),
                    Ok(None) => break,
                    Err(broken) => {
                        result = Err(broken);
                        break;
                    }
                }
            }
        }
        assert!(stream.is_empty(), "it takes all there is");
        (datagrams, result)
    }

    #[test]
    fn the_vectors_of_the_protocol_are_written_and_read() {
        for vector in vectors("stream/") {
            let keys = Arc::new(LinkKeys::new(vector.one("secret").try_into().unwrap()));
            let mut writer = Writer::new(keys.clone(), vector.one("salt").try_into().unwrap());
            let mut out = Vec::new();
            vector.all("datagram").into_iter().for_each(|datagram| writer.write(datagram, &mut out));
            assert_eq!(hex(&out), hex(vector.one("stream")));
            let (datagrams, result) = read(&mut Reader::new(keys, 0), &out, &[1]);
            assert_eq!(
                (datagrams, result),
                (vector.all("datagram").iter().map(|d| d.to_vec()).collect(), Ok(()))
            );
        }
    }

    #[test]
    fn a_stream_without_the_secret_breaks_within_a_few_records_and_stays_broken() {
        let other = Arc::new(LinkKeys::new(&[8; 32]));
        let mut worst = 0;
        for salt in 0..100 {
            let stream: Vec<u8> = written([salt; SALT], &vec![vec![5; 700]; 300]);
            let mut reader = Reader::new(other.clone(), 0);
            let (datagrams, result) = read(&mut reader, &stream, &[1448]);
            assert_eq!(result, Err(Broken));
            worst = worst.max(datagrams.len());
            let (more, result) = read(&mut reader, &stream, &[1448]);
            assert_eq!((more.len(), result), (0, Err(Broken)));
        }
        assert!(worst < 20, "{worst}");
    }

    #[test]
    fn what_is_too_long_or_empty_is_not_written() {
        let stream = written([1; SALT], &[vec![], vec![0; RECORD_MAX + 1], vec![3; RECORD_MAX]]);
        let (datagrams, result) = read(&mut Reader::new(keys(), 0), &stream, &[4096]);
        assert_eq!((datagrams.len(), datagrams[0].len(), result), (1, RECORD_MAX, Ok(())));
    }

    /// Pearson's test of each masked byte of equal lengths, and of the first bytes of many equal streams.
    #[test]
    fn lengths_and_first_bytes_are_spread_as_random_ones() {
        let mut counts = [[0u32; 256]; LENGTH];
        let stream = written([9; SALT], &vec![vec![0; 30]; 51_200]);
        for record in stream[SALT..].chunks(LENGTH + 30) {
            (0..LENGTH).for_each(|at| counts[at][usize::from(record[at])] += 1);
        }
        let mut first = [[0u32; 256]; LENGTH];
        for n in 0..51_200u128 {
            let stream = written((n << 64).to_be_bytes(), &[vec![0; 30]]);
            (0..LENGTH).for_each(|at| first[at][usize::from(stream[SALT + at])] += 1);
        }
        for counts in counts.iter().chain(&first) {
            let squares: f64 = counts.iter().map(|count| (f64::from(*count) - 200.0).powi(2) / 200.0).sum();
            // 255 degrees of freedom: exceeded once in a million.
            assert!((160.0..375.0).contains(&squares), "{squares}");
        }
    }

    proptest! {
        #[test]
        fn whatever_way_a_stream_is_cut_its_datagrams_come_out(
            lengths in prop::collection::vec(prop_oneof![1..64usize, 1..1500usize, Just(RECORD_MAX)], 0..12),
            pieces in prop::collection::vec(prop_oneof![1..4usize, 1..3000usize], 1..6),
            room in prop_oneof![Just(0), Just(65_536usize)],
        ) {
            let datagrams: Vec<Vec<u8>> = lengths.iter().enumerate().map(|(n, length)| vec![n as u8; *length]).collect();
            let stream = written([3; SALT], &datagrams);
            let (found, result) = read(&mut Reader::new(keys(), room), &stream, &pieces);
            prop_assert_eq!((found, result), (datagrams, Ok(())));
        }

        #[test]
        fn memory_never_grows(stream in prop::collection::vec(any::<u8>(), 0..40_000), pieces in prop::collection::vec(1..9000usize, 1..5)) {
            let mut reader = Reader::new(keys(), 0);
            let (datagrams, _) = read(&mut reader, &stream, &pieces);
            prop_assert!(datagrams.iter().map(Vec::len).sum::<usize>() <= stream.len());
            prop_assert_eq!(reader.buffer.capacity(), Reader::LEAST);
        }
    }
}
