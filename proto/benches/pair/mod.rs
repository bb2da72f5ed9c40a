//! One lane of a link at both its ends, connected by buffers in memory.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use zeroize::Zeroizing;

use tund_proto::config;
use tund_proto::core::guard::Guard;
use tund_proto::core::inner::InnerPolicy;
use tund_proto::core::key_id::KeyId;
use tund_proto::core::lane::{
    Arrived, Command, Key, KeySlot, Lane, Notice, ReceiveCommand, SendCommand, Settings, Sink, Transmit,
};
use tund_proto::core::path::Path;
use tund_proto::crypto::keys::{DirectionKey, LinkKeys};
use tund_proto::crypto::suite::Cipher;
use tund_proto::wire::datagram::Framing;

/// UDP payload on a 1500-byte path, and an inner packet that fits it.
pub const DATAGRAM: usize = 1472;
pub const PACKET: usize = 1420;
/// Frames per round: the segments of a super-frame.
pub const FRAMES: usize = 44;

/// A lane's output: concatenated datagrams, and the number of frames.
#[derive(Default)]
struct Out {
    datagrams: Vec<u8>,
    stride: usize,
    frames: u64,
}

impl Sink for Out {
    fn frame(&mut self, frame: &[u8]) {
        black_box(frame);
        self.frames += 1;
    }

    fn datagram(&mut self, datagram: &[u8], _: Path) {
        self.datagrams.extend_from_slice(datagram);
    }

    fn transmit(&mut self, transmit: Transmit<'_>) {
        self.datagrams.extend_from_slice(transmit.bytes);
        self.stride = transmit.stride;
    }

    fn notice(&mut self, _: Notice) -> bool {
        true
    }
}

/// Two ends: frames go from one to the other.
pub struct Pair {
    from: Lane,
    to: Lane,
    out: Out,
    path: Path,
    now: Instant,
}

impl Pair {
    /// Both have their keys and each other's address. A guard knows both hosts of frames like `frame`.
    pub fn new(framing: Framing, lane: u8, guard: Option<&config::Guard>, frame: &[u8]) -> Self {
        let keys = Arc::new(LinkKeys::new(&[1; 32]));
        let settings = |direction| Settings {
            keys: keys.clone(),
            framing,
            cipher: Cipher::Aes256Gcm,
            direction,
            lane,
            max_frame: 1500,
            bundle: true,
            copy_dscp: false,
            inner: InnerPolicy::bridged(guard.map(|rules| Guard::new(rules, keys.loops()))),
        };
        #[allow(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let key = match framing {
            Framing::Static => Key::KeyId(KeyId::new(&keys, 7, [1; 4])),
            Framing::Session => {
                let key = DirectionKey::new(Zeroizing::new([3; 32]));
                Key::Slot { slot: 1, serial: 1, cipher: Cipher::Aes256Gcm, key }
            }
        };
        let path = Path::from(SocketAddr::from(([192, 0, 2, 1], 1417)));
        let (mut from, mut to, mut out) = (Lane::new(settings(0)), Lane::new(settings(1)), Out::default());
        from.handle_command(now, SendCommand::Prepare(KeySlot::Next, key.clone()).into(), &mut out);
        from.handle_command(now, SendCommand::Switch(KeySlot::Next).into(), &mut out);
        from.handle_command(now, SendCommand::Budget(DATAGRAM).into(), &mut out);
        to.handle_command(now, ReceiveCommand::Accept { key, after: None, named: None }.into(), &mut out);
        for command in Command::endpoint(path).into_iter().chain(Command::agreed(true)) {
            from.handle_command(now, command.clone(), &mut out);
            to.handle_command(now, command, &mut out);
        }
        from.outward.frames.inner.set_now(now);
        // The receiving end sends in the other direction.
        let back = [&frame[6..12], &frame[..6], &frame[12..]].concat();
        assert!(to.outward.frames.admits(&back, &mut out), "both hosts are known");
        Self { from, to, out, path, now }
    }

    /// Passes a super-frame of [`FRAMES`] such frames through the guard, seals it and opens it.
    pub fn round(&mut self, frame: &[u8]) {
        let before = self.out.frames;
        assert!(self.from.outward.frames.admits(black_box(frame), &mut self.out));
        for _ in 0..FRAMES {
            self.from.outward.handle_frame(black_box(frame), &[], &mut self.out);
        }
        self.from.outward.flush(&mut self.out);
        let mut bytes = std::mem::take(&mut self.out.datagrams);
        let arrived = Arrived { bytes: &mut bytes, stride: self.out.stride, ecn: 0, from: self.path };
        self.to.inward.handle_datagrams(self.now, arrived, &mut self.out);
        bytes.clear();
        self.out.datagrams = bytes;
        assert_eq!(self.out.frames, before + FRAMES as u64, "every frame arrives");
    }
}
