//! Requests connections from proxies: HTTP CONNECT (RFC 9110, section 9.3.6, with Basic of RFC 7617) and SOCKS version 5 (RFC 1928,
//! RFC 1929). Answers are read byte by byte, so as not to consume what follows.

use std::fmt;
use std::net::SocketAddr;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::octets;

/// Longest answer in bytes.
const LONGEST: usize = 8192;
/// SOCKS 5.
const VERSION: u8 = 5;
/// SOCKS methods: no authentication; user name and password.
const OPEN: u8 = 0;
const PASSWORD: u8 = 2;
/// Negotiation version of RFC 1929.
const NEGOTIATION: u8 = 1;
/// Longest user name, and longest password, in SOCKS 5, in bytes.
pub const LONGEST_WORD: usize = 255;

/// Protocol of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// CONNECT.
    Http,
    /// SOCKS 5.
    Socks5,
}

impl Kind {
    /// URL scheme.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Socks5 => "socks5",
        }
    }
}

/// Credentials; wiped when dropped.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Why a connection failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The proxy wants credentials or rejects them; what it said.
    Credentials(Said),
    /// It refuses to connect there.
    Forbidden(Said),
    /// It cannot connect there.
    Unreachable(Said),
    /// The answer is not from such a proxy.
    Garbled,
}

/// HTTP status, or code of a SOCKS reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Such as `407`.
    Status(u16),
    /// RFC 1928, section 6.
    Reply(u8),
    /// No acceptable method, or a rejected password.
    Method,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Reply(code) => write!(f, "SOCKS reply {code}"),
            Self::Method => f.write_str("SOCKS authentication"),
        }
    }
}

/// What to do after a byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Read another byte.
    Read,
    /// Send this, then read on.
    Send(Vec<u8>),
    /// The connection is established; what follows belongs to it.
    Connected,
}

/// The part of an answer being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Method,
    Password,
    Reply,
}

/// One connection request.
pub struct Request {
    to: SocketAddr,
    credentials: Option<Credentials>,
    part: Part,
    answer: Vec<u8>,
}

impl Request {
    /// Begins; send these bytes first.
    pub fn new(kind: Kind, to: SocketAddr, credentials: Option<Credentials>) -> (Self, Vec<u8>) {
        let (part, first) = match (kind, &credentials) {
            (Kind::Http, credentials) => (Part::Head, connect(to, credentials.as_ref())),
            (Kind::Socks5, None) => (Part::Method, vec![VERSION, 1, OPEN]),
            (Kind::Socks5, Some(_)) => (Part::Method, vec![VERSION, 2, OPEN, PASSWORD]),
        };
        (Self { to, credentials, part, answer: Vec::new() }, first)
    }

    /// Handles the next byte of the answer.
    ///
    /// # Errors
    /// The proxy refuses, or it is not one.
    pub fn handle_byte(&mut self, byte: u8) -> Result<Next, Refusal> {
        if self.answer.len() >= LONGEST {
            return Err(Refusal::Garbled);
        }
        self.answer.push(byte);
        let next = match self.part {
            Part::Head => head(&self.answer)?,
            Part::Method => self.method()?,
            Part::Password => self.password()?,
            Part::Reply => reply(&self.answer)?,
        };
        if matches!(next, Next::Send(_)) {
            self.answer.clear();
        }
        Ok(next)
    }

    fn method(&mut self) -> Result<Next, Refusal> {
        match (&*self.answer, &self.credentials) {
            ([VERSION], _) => Ok(Next::Read),
            ([VERSION, OPEN], _) => Ok(self.ask()),
            ([VERSION, PASSWORD], Some(credentials)) => {
                let message = negotiation(credentials)?;
                self.part = Part::Password;
                Ok(Next::Send(message))
            }
            ([VERSION, 0xff], _) => Err(Refusal::Credentials(Said::Method)),
            _ => Err(Refusal::Garbled),
        }
    }

    fn password(&mut self) -> Result<Next, Refusal> {
        match *self.answer {
            [NEGOTIATION] => Ok(Next::Read),
            [NEGOTIATION, 0] => Ok(self.ask()),
            [NEGOTIATION, _] => Err(Refusal::Credentials(Said::Method)),
            _ => Err(Refusal::Garbled),
        }
    }

    /// SOCKS: requests the connection.
    fn ask(&mut self) -> Next {
        let family = if self.to.is_ipv4() { 1 } else { 4 };
        self.part = Part::Reply;
        let port = self.to.port().to_be_bytes();
        Next::Send([&[VERSION, 1, 0, family][..], &octets(self.to.ip()), &port].concat())
    }
}

/// Encodes user and password as in RFC 1929.
fn negotiation(Credentials { user, password }: &Credentials) -> Result<Vec<u8>, Refusal> {
    let mut message = vec![NEGOTIATION];
    for word in [user, password] {
        message.push(u8::try_from(word.len()).map_err(|_| Refusal::Credentials(Said::Method))?);
        message.extend(word.as_bytes());
    }
    Ok(message)
}

fn connect(to: SocketAddr, credentials: Option<&Credentials>) -> Vec<u8> {
    let mut text = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let mut plain = format!("{user}:{password}");
        let mut basic = Base64::encode_string(plain.as_bytes());
        text.extend(["Proxy-Authorization: Basic ", &basic, "\r\n"]);
        plain.zeroize();
        basic.zeroize();
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Parses `HTTP/1.1 200 …`, fields, and an empty line.
fn head(answer: &[u8]) -> Result<Next, Refusal> {
    const FIRST: &[u8] = b"HTTP/1.";
    if !answer.iter().zip(FIRST).all(|(one, other)| one == other) {
        return Err(Refusal::Garbled);
    }
    if !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
        return Ok(Next::Read);
    }
    let status = match answer.get(FIRST.len()..) {
        Some([b'0'..=b'9', b' ', digits @ ..]) => {
            std::str::from_utf8(digits.get(..3).unwrap_or_default()).ok()
        }
        Some(_) | None => None,
    };
    let status: u16 = status.and_then(|digits| digits.parse().ok()).ok_or(Refusal::Garbled)?;
    match status {
        200..=299 => Ok(Next::Connected),
        401 | 407 => Err(Refusal::Credentials(Said::Status(status))),
        500..=599 => Err(Refusal::Unreachable(Said::Status(status))),
        _ => Err(Refusal::Forbidden(Said::Status(status))),
    }
}

/// Parses version, code, reserved, and the proxy's own address.
fn reply(answer: &[u8]) -> Result<Next, Refusal> {
    let code = match *answer {
        [VERSION] => return Ok(Next::Read),
        [VERSION, code, ..] => code,
        _ => return Err(Refusal::Garbled),
    };
    match code {
        0 => {}
        2 => return Err(Refusal::Forbidden(Said::Reply(code))),
        1 | 3..=6 => return Err(Refusal::Unreachable(Said::Reply(code))),
        _ => return Err(Refusal::Garbled),
    }
    let address = match answer.get(3) {
        None => return Ok(Next::Read),
        Some(1) => 4,
        Some(4) => 16,
        Some(3) => match answer.get(4) {
            None => return Ok(Next::Read),
            Some(length) => 1 + usize::from(*length),
        },
        Some(_) => return Err(Refusal::Garbled),
    };
    Ok(if answer.len() < 4 + address + 2 { Next::Read } else { Next::Connected })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "192.0.2.1:563";

    fn credentials() -> Option<Credentials> {
        Some(Credentials { user: "Aladdin".into(), password: "open sesame".into() })
    }

    /// What is sent after these answers, and the result of the last, which is read completely.
    fn ask(
        kind: Kind,
        to: &str,
        credentials: Option<Credentials>,
        answers: &[&[u8]],
    ) -> (Vec<Vec<u8>>, Result<Next, Refusal>) {
        let (mut request, first) = Request::new(kind, to.parse().unwrap(), credentials);
        let (mut sent, mut last) = (vec![first], Ok(Next::Read));
        for answer in answers {
            for (index, byte) in answer.iter().enumerate() {
                last = request.handle_byte(*byte);
                let whole = index + 1 == answer.len();
                assert!(whole || last == Ok(Next::Read), "after {index} of {answer:?}: {last:?}");
            }
            if let Ok(Next::Send(bytes)) = &last {
                sent.push(bytes.clone());
            }
        }
        (sent, last)
    }

    #[test]
    fn connect_is_asked_for_as_http_has_it_and_its_answer_read_to_the_empty_line() {
        // The credentials are from RFC 7617, section 2.
        let (sent, last) = ask(
            Kind::Http,
            V4,
            credentials(),
            &[b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n"],
        );
        let expected = "CONNECT 192.0.2.1:563 HTTP/1.1\r\nHost: 192.0.2.1:563\r\n\
                        Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert_eq!((sent, last), (vec![expected.as_bytes().to_vec()], Ok(Next::Connected)));
        let (sent, _) = ask(Kind::Http, "[2001:db8::1]:563", None, &[]);
        assert_eq!(sent[0], b"CONNECT [2001:db8::1]:563 HTTP/1.1\r\nHost: [2001:db8::1]:563\r\n\r\n");
    }

    #[test]
    fn what_http_says_is_told_apart() {
        let of = |status: u16| {
            ask(Kind::Http, V4, None, &[format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()]).1.unwrap_err()
        };
        assert_eq!(of(407), Refusal::Credentials(Said::Status(407)));
        assert_eq!(of(403), Refusal::Forbidden(Said::Status(403)));
        assert_eq!(of(405), Refusal::Forbidden(Said::Status(405)));
        assert_eq!(of(502), Refusal::Unreachable(Said::Status(502)));
        assert_eq!(ask(Kind::Http, V4, None, &[b"S"]).1, Err(Refusal::Garbled));
        assert_eq!(ask(Kind::Http, V4, None, &[b"HTTP/1.1 2x0 x\r\n\r\n"]).1, Err(Refusal::Garbled));
        let mut request = Request::new(Kind::Http, V4.parse().unwrap(), None).0;
        let long = b"HTTP/1.1 200 ".iter().chain(std::iter::repeat(&b'x'));
        let taken = long.take_while(|byte| request.handle_byte(**byte).is_ok()).count();
        assert_eq!(taken, LONGEST);
    }

    #[test]
    fn socks_connects_to_both_families_with_a_password_and_without() {
        // The messages follow RFC 1928 and RFC 1929.
        let answers: [&[u8]; 3] = [&[5, 2], &[1, 0], &[5, 0, 0, 1, 10, 0, 0, 9, 1, 2]];
        let (sent, last) = ask(Kind::Socks5, V4, credentials(), &answers);
        let password = [&[1, 7][..], b"Aladdin", &[11], b"open sesame"].concat();
        let request = vec![5, 1, 0, 1, 192, 0, 2, 1, 2, 51];
        assert_eq!(sent, [vec![5, 2, 0, 2], password, request]);
        assert_eq!(last, Ok(Next::Connected));
        let name: &[u8] = &[5, 0, 0, 3, 2, b'a', b'b', 0, 9];
        let (sent, last) = ask(Kind::Socks5, "[2001:db8::1]:563", None, &[&[5, 0], name]);
        assert_eq!(sent[0], [5, 1, 0]);
        assert_eq!(sent[1][..4], [5, 1, 0, 4]);
        assert_eq!((sent[1].len(), last), (4 + 16 + 2, Ok(Next::Connected)));
        let v6 = [&[5, 0, 0, 4][..], &[0; 18]].concat();
        assert_eq!(ask(Kind::Socks5, V4, None, &[&[5, 0], &v6]).1, Ok(Next::Connected));
    }

    #[test]
    fn what_socks_says_is_told_apart() {
        let of = |answers: &[&[u8]], credentials| ask(Kind::Socks5, V4, credentials, answers).1.unwrap_err();
        assert_eq!(of(&[&[5, 0xff]], None), Refusal::Credentials(Said::Method));
        assert_eq!(of(&[&[5, 2], &[1, 1]], credentials()), Refusal::Credentials(Said::Method));
        assert_eq!(of(&[&[5, 2]], None), Refusal::Garbled, "it was not offered");
        assert_eq!(of(&[&[5, 0], &[5, 2]], None), Refusal::Forbidden(Said::Reply(2)));
        assert_eq!(of(&[&[5, 0], &[5, 5]], None), Refusal::Unreachable(Said::Reply(5)));
        assert_eq!(of(&[b"H"], None), Refusal::Garbled);
        assert_eq!(of(&[&[5, 0], &[5, 0, 0, 2]], None), Refusal::Garbled);
    }
}
