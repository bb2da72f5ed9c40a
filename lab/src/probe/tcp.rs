//! TCP streams.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::End;
use crate::machine::busy;
use crate::{At, Error, Host};

/// The same congestion control everywhere: some machines default to one that paces, which hides the path behind a timer.
const CONGESTION: &[u8] = b"cubic";
/// How long a stream may stall before it has failed.
const STALLED: Duration = Duration::from_secs(10);

/// How many streams run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// From the first end to the second.
    pub forward: usize,
    /// From the second end to the first.
    pub backward: usize,
}

/// The result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Carried {
    /// Bits per second received, all streams together.
    pub rate: f64,
    /// Bytes received.
    pub bytes: u64,
    /// CPU time used by the whole machine meanwhile.
    pub busy: Duration,
}

/// Carries TCP from `from` to `target` on `to` for `time` and returns bits per second received.
pub fn throughput(
    from: &Host,
    to: &Host,
    source: Ipv4Addr,
    target: Ipv4Addr,
    time: Duration,
) -> Result<f64, Error> {
    let ends = [End { host: from, address: source }, End { host: to, address: target }];
    Ok(Streams { forward: 1, backward: 0 }.carry(ends, time)?.rate)
}

impl Streams {
    /// Fills the streams for `time`. The first end connects, whatever the stream's direction.
    pub fn carry(self, [a, b]: [End<'_>; 2], time: Duration) -> Result<Carried, Error> {
        let listener = b.host.within(|| listen(b.address))?.at("TCP listener")?;
        let mut pairs = Vec::new();
        for number in 0..self.forward + self.backward {
            let (near, far) = connect(&a, &listener)?;
            pairs.push(if number < self.forward { (near, far) } else { (far, near) });
        }
        let before = busy()?;
        let begin = Instant::now();
        let sums = thread::scope(|scope| {
            let run = |(source, sink): (TcpStream, TcpStream)| {
                let filler = scope.spawn(move || fill(source, begin + time));
                let drainer = scope.spawn(move || drain(sink, begin));
                (filler, drainer)
            };
            let running: Vec<_> = pairs.into_iter().map(run).collect();
            let mut sums = Vec::new();
            for (filler, drainer) in running {
                join(filler)?;
                sums.push(join(drainer)?);
            }
            Ok::<_, io::Error>(sums)
        });
        let sums = sums.at("TCP transfer")?;
        let busy = busy()?.saturating_sub(before);
        let rate = sums.iter().map(|(bytes, seconds)| *bytes as f64 * 8.0 / seconds).sum();
        Ok(Carried { rate, bytes: sums.iter().map(|(bytes, _)| bytes).sum(), busy })
    }
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn socket(address: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_congestion(CONGESTION)?;
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    Ok(socket)
}

fn listen(address: Ipv4Addr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.listen(16)?;
    Ok(socket.into())
}

fn connect(from: &End<'_>, listener: &TcpListener) -> Result<(TcpStream, TcpStream), Error> {
    let address = listener.local_addr().at("TCP listener")?;
    let open = || -> io::Result<TcpStream> {
        let socket = socket(from.address)?;
        socket.connect_timeout(&address.into(), STALLED)?;
        Ok(socket.into())
    };
    let near = from.host.within(open)?.at(format!("TCP to {address}"))?;
    let (far, _) = listener.accept().at("TCP accept")?;
    for end in [&near, &far] {
        end.set_read_timeout(Some(STALLED)).at("TCP")?;
        end.set_write_timeout(Some(STALLED)).at("TCP")?;
    }
    Ok((near, far))
}

fn fill(mut stream: TcpStream, end: Instant) -> io::Result<()> {
    let block = vec![0x5a; 128 * 1024];
    while Instant::now() < end {
        stream.write_all(&block)?;
    }
    Ok(())
}

/// Bytes until the end of the stream, and the seconds since `begin`.
fn drain(mut stream: TcpStream, begin: Instant) -> io::Result<(u64, f64)> {
    let mut block = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut block) {
            Ok(0) => return Ok((bytes, begin.elapsed().as_secs_f64())),
            Ok(length) => bytes += length as u64,
            // Retried, as in write_all.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
