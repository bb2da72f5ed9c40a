//! TAP devices whose frames this process reads and writes, and a wire made of two of them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{At, Error};

/// Largest frame read.
const MAX_FRAME: usize = 65_536;
/// How often a forwarding thread checks whether to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// A TAP device held by this process.
pub struct Port {
    device: tun::Device,
    seen: Mutex<VecDeque<Vec<u8>>>,
}

impl Port {
    /// Creates the device in the calling thread's network namespace.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let mut config = tun::Configuration::default();
        config.layer(tun::Layer::L2).tun_name(name);
        config.platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        let device = tun::create(&config).at(format!("cannot create TAP device {name}"))?;
        Ok(Self { device, seen: Mutex::default() })
    }

    /// Sends a frame to the host.
    pub fn send(&self, frame: &[u8]) -> Result<(), Error> {
        self.device.send(frame).at("cannot write to a port")?;
        Ok(())
    }

    /// The next frame sent by the host here; `None` after `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; MAX_FRAME];
        let length = self.device.recv_timeout(&mut buffer, timeout).ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// Waits for a frame that `wanted` accepts; others are kept for [`Port::frames`].
    pub fn wait_frame(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.checked_duration_since(Instant::now())?;
            let Some(frame) = self.receive(left) else { continue };
            if wanted(&frame) {
                return Some(frame);
            }
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame);
        }
    }

    /// All frames within `time` from now, and those skipped by earlier waits.
    pub fn frames(&self, time: Duration) -> Vec<Vec<u8>> {
        let mut frames: Vec<_> = self.seen.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        let deadline = Instant::now() + time;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            frames.extend(self.receive(left));
        }
        frames
    }
}

/// An end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first host of [`crate::Net::wire`].
    A,
    /// The second host.
    B,
}

impl Side {
    /// The opposite end.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A frame that crossed the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    /// The end it came from.
    pub from: Side,
    /// Ethernet frame without check sequence.
    pub bytes: Vec<u8>,
}

/// Decides the fate of a frame: returns the frames to forward instead.
pub type Filter = Box<dyn FnMut(&Crossed) -> Vec<Vec<u8>> + Send>;

#[derive(Default)]
struct State {
    record: Option<Vec<Crossed>>,
    filter: Option<Filter>,
}

struct Shared {
    ports: [Port; 2],
    state: Mutex<State>,
    end: AtomicBool,
}

impl Shared {
    fn port(&self, side: Side) -> &Port {
        let [a, b] = &self.ports;
        match side {
            Side::A => a,
            Side::B => b,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self, from: Side) -> io::Result<()> {
        let mut buffer = vec![0; MAX_FRAME];
        while !self.end.load(Ordering::Relaxed) {
            match self.port(from).device.recv_timeout(&mut buffer, PATIENCE) {
                Ok(length) => self.pass(from, &buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn pass(&self, from: Side, bytes: &[u8]) {
        let crossed = Crossed { from, bytes: bytes.to_owned() };
        let mut state = self.lock();
        let onward = match &mut state.filter {
            Some(filter) => filter(&crossed),
            None => vec![crossed.bytes.clone()],
        };
        if let Some(record) = &mut state.record {
            record.push(crossed);
        }
        drop(state);
        for frame in onward {
            // The far end may be down; a real wire then loses the frame as well.
            let _ = self.port(from.other()).device.send(&frame);
        }
    }
}

/// A wire between two hosts, forwarded frame by frame.
pub struct Wire {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Wire {
    pub(crate) fn new(a: Port, b: Port) -> Self {
        let shared = Arc::new(Shared { ports: [a, b], state: Mutex::default(), end: AtomicBool::new(false) });
        let start = |side| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.forward(side))
        };
        let threads = vec![start(Side::A), start(Side::B)];
        Self { shared, threads }
    }

    /// Records every frame from now on.
    pub fn record(&self) {
        self.shared.lock().record = Some(Vec::new());
    }

    /// The frames recorded so far, in order; recording continues from empty.
    pub fn take(&self) -> Vec<Crossed> {
        self.shared.lock().record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The number of frames recorded so far.
    pub fn recorded(&self) -> usize {
        self.shared.lock().record.as_ref().map_or(0, Vec::len)
    }

    /// Has `filter` decide about every frame from now on.
    pub fn set_filter(&self, filter: impl FnMut(&Crossed) -> Vec<Vec<u8>> + Send + 'static) {
        self.shared.lock().filter = Some(Box::new(filter));
    }

    /// Forwards everything again.
    pub fn clear_filter(&self) {
        self.shared.lock().filter = None;
    }

    /// Sends an invented frame to one end.
    pub fn inject(&self, to: Side, frame: &[u8]) -> Result<(), Error> {
        self.shared.port(to).send(frame)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
