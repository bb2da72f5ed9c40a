use std::net::SocketAddr;

use tund::wire::proxy::{Kind, Next, Request};

use crate::script::Script;

/// A proxy's answers; the first byte selects its kind. Output stays short, and so does what is read.
pub fn proxy(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.byte();
    let kind = if flags % 2 == 0 { Kind::Http } else { Kind::Socks5 };
    let port = u16::from(flags);
    let to = if flags & 2 == 0 {
        SocketAddr::from(([192, 0, 2, 1], port))
    } else {
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], port))
    };
    let (mut request, mut sent) = Request::new(kind, to, None);
    for (count, byte) in script.0.iter().enumerate() {
        assert!(count <= 3 * 8192);
        match request.handle_byte(*byte) {
            Ok(Next::Read) => {}
            Ok(Next::Send(bytes)) => sent.extend(bytes),
            Ok(Next::Connected) | Err(_) => break,
        }
    }
    assert!(sent.len() < 200, "{}", sent.len());
}
