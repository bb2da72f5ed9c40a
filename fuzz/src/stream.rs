use std::sync::Arc;

use tund::crypto::keys::LinkKeys;
use tund::wire::stream::{Reader, SALT, Writer};

use crate::script::Script;

/// A byte stream, hostile or honest as the first byte says. However it is cut, the same datagrams come out.
pub fn stream(data: &[u8]) {
    let mut script = Script(data);
    let honest = script.byte() % 2 == 0;
    let pieces: Vec<usize> = script.counted().iter().map(|piece| usize::from(*piece) + 1).collect();
    let keys = Arc::new(LinkKeys::new(&[42; 32]));
    if !honest {
        let whole = read(&keys, script.0, &[]);
        assert_eq!(read(&keys, script.0, &pieces), whole);
        assert!(whole.0.iter().map(Vec::len).sum::<usize>() <= script.0.len());
        return;
    }
    let (mut writer, mut bytes, mut datagrams) =
        (Writer::new(keys.clone(), [7; SALT]), Vec::new(), Vec::new());
    while !script.is_over() {
        let datagram = script.counted().to_vec();
        writer.write(&datagram, &mut bytes);
        datagrams.extend((!datagram.is_empty()).then_some(datagram));
    }
    assert_eq!(read(&keys, &bytes, &pieces), (datagrams, false));
}

/// The datagrams of a stream in such pieces, and whether it broke.
fn read(keys: &Arc<LinkKeys>, mut bytes: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, bool) {
    let mut reader = Reader::new(keys.clone(), 0);
    let (mut pieces, mut datagrams) = (pieces.iter().cycle(), Vec::new());
    while !bytes.is_empty() {
        let room = reader.room();
        let length = pieces.next().copied().unwrap_or(usize::MAX).min(bytes.len()).min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        bytes = &bytes[length..];
        reader.filled(length);
        loop {
            match reader.next() {
                Ok(Some(datagram)) => datagrams.push(datagram.to_vec()),
                Ok(None) => break,
                Err(_) => return (datagrams, true),
            }
        }
    }
    (datagrams, false)
}
