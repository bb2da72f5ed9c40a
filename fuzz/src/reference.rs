//! A slow reference for stream blocks: it waits until everything is in, then goes byte by byte. It has no dependencies,
//! as the tests of `tund::wire::block` include this file.

use std::collections::{BTreeMap, VecDeque};

/// An authentic datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// A stream block with this body.
    Block(Vec<u8>),
    /// Another kind.
    Other,
}

struct Partial {
    /// The counter that must bring the rest.
    expects: u32,
    bytes: Vec<u8>,
    length: usize,
}

/// Returns the frames in the received datagrams, in counter order.
pub fn frames(max_frame: usize, received: &BTreeMap<u32, Datagram>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut partial = None::<Partial>;
    for (counter, datagram) in received {
        let begun = partial.take();
        let Datagram::Block(body) = datagram else { continue };
        let mut stream = body.iter().copied().collect::<VecDeque<u8>>();
        let Some(offset) = number(&mut stream) else { continue };
        let begun =
            begun.filter(|begun| begun.expects == *counter && begun.length - begun.bytes.len() == offset);
        let expects = counter.saturating_add(1);
        match begun {
            Some(begun) => partial = more(Partial { expects, ..begun }, &mut stream, &mut frames),
            None => drop(stream.drain(..offset.min(stream.len()))),
        }
        while partial.is_none() && stream.len() >= 3 {
            let length = number(&mut stream).unwrap_or(0);
            if length == 0 || length > max_frame {
                break;
            }
            let new = Partial { expects, bytes: Vec::new(), length };
            partial = more(new, &mut stream, &mut frames);
        }
    }
    frames
}

/// Feeds a frame; returns it if it is still incomplete.
fn more(mut frame: Partial, stream: &mut VecDeque<u8>, frames: &mut Vec<Vec<u8>>) -> Option<Partial> {
    while frame.bytes.len() < frame.length {
        match stream.pop_front() {
            Some(byte) => frame.bytes.push(byte),
            None => return Some(frame),
        }
    }
    frames.push(frame.bytes);
    None
}

fn number(stream: &mut VecDeque<u8>) -> Option<usize> {
    if stream.len() < 2 {
        return None;
    }
    let (high, low) = (stream.pop_front()?, stream.pop_front()?);
    Some(usize::from(high) << 8 | usize::from(low))
}
