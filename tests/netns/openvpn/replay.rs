//! The same datagrams in the same order to OpenVPN and to tund: the same frames must come out.
//!
//! ```text
//!  mon 10.0.0.2, the sender ---- 10.0.0.1 fri: tund on port 1194 with tun0, and OpenVPN on port 1195 with tap1
//! ```

use std::net::UdpSocket;
use std::time::{SystemTime, UNIX_EPOCH};

use tund::core::limits::WINDOW;
use tund::crypto::cbc_hmac::{CbcCipher, CbcHmac, Digest, pad, slots};
use tund::wire::openvpn::{PACKET_ID, PING, PacketId};
use tund_lab::Port;
use tund_proto::testing::Dice;

use super::*;

/// Datagrams with random numbers.
const DRAWN: usize = 600;
/// An EtherType for local experiments.
const KIND: u16 = 0x88b6;
/// OpenVPN waits 15 s for what was overtaken, and checks every 5 s.
const LATE: Duration = Duration::from_secs(21);

struct Sender {
    keys: CbcHmac,
    socket: UdpSocket,
    sent: u32,
}

impl Sender {
    fn new(pair: &Pair) -> Self {
        let text = fs::read_to_string(pair.fri.dir().join("openvpn.key")).unwrap();
        let key = tund_import::parse_key(&text).unwrap();
        let keys = CbcHmac::new(CbcCipher::Aes256, Digest::Sha256, slots(&key, None)[0]);
        let socket = pair.mon.within(|| UdpSocket::bind("10.0.0.2:0")).unwrap().unwrap();
        Self { keys, socket, sent: 0 }
    }

    fn send(&self, id: PacketId, payload: &[u8]) {
        let layout = self.keys.layout();
        let (prefix, plain) = (layout.prefix(), PACKET_ID + payload.len());
        let mut datagram = vec![0; layout.sealed(plain)];
        datagram[layout.mac..prefix].fill(7);
        datagram[prefix..prefix + PACKET_ID].copy_from_slice(&id.emit());
        datagram[prefix + PACKET_ID..prefix + plain].copy_from_slice(payload);
        pad(&mut datagram[prefix..], plain);
        let length = datagram.len();
        self.keys.seal(&mut datagram, length);
        for port in [PORT, PORT + 1] {
            self.socket.send_to(&datagram, ("10.0.0.1", port)).unwrap();
        }
    }

    /// A frame that contains its number.
    fn frame(&mut self, id: PacketId) -> u32 {
        self.sent += 1;
        let payload = [&self.sent.to_be_bytes()[..], &[0; 42]].concat();
        self.send(id, &ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], KIND, &payload));
        self.sent
    }
}

/// The numbers of the frames from a device.
fn numbers(port: &Port) -> Vec<u32> {
    let frames = port.frames(Duration::from_millis(100));
    let number = |frame: &Vec<u8>| {
        let kind = frame.get(12..14)?;
        (kind == KIND.to_be_bytes()).then(|| u32::from_be_bytes(frame[14..18].try_into().unwrap()))
    };
    frames.iter().filter_map(number).collect()
}

/// What may come after this: in order, with a gap, behind, far behind, far ahead, of another start, or of none.
fn next(newest: PacketId, dice: &mut Dice) -> PacketId {
    let PacketId { seq, time } = newest;
    let mut below = |limit: u32| dice.below(limit as usize) as u32;
    let (seq, time) = match below(20) {
        0..9 => (seq + 1, time),
        9 | 10 => (seq + 1 + below(30), time),
        11..14 => (seq.saturating_sub(below(40)), time),
        14 | 15 => (seq.saturating_sub(below(WINDOW + WINDOW / 8)), time),
        16 => (seq + WINDOW - 100 + below(2000), time),
        17 => (seq + below(9), time - 1 - below(3)),
        18 => (0, time),
        _ => (1 + below(20_000), time + 1),
    };
    PacketId { seq, time }
}

#[test]
fn the_same_frames_come_out_of_the_real_program_and_of_tund() {
    let pair = pair();
    keyed(&pair);
    let case = Case { device: "tap", direction: None, ..USUAL };
    let text =
        case.tund(&pair.fri).replace("remote = '10.0.0.2:1194'\n", "").replace("address = '10.1.0.1/24'", "");
    let fri = start(&pair.fri, "fri", &text.replace("'6s'", "'60s'"));
    let real = spawn(
        &pair.fri,
        &format!(
            "openvpn --dev tap1 --dev-type tap --secret {} --cipher AES-256-CBC --auth SHA256 --port {} --replay-window {WINDOW} --verb 3",
            pair.fri.dir().join("openvpn.key").display(),
            PORT + 1
        ),
    );
    pair.fri
        .wait_output("ip -brief link", SOON, |text| text.contains("tun0") && text.contains("tap1"))
        .unwrap();
    // A bridge connects each device to one that the test reads.
    let ports = [("tun0", "br0", "alice"), ("tap1", "br1", "bob")].map(|(device, bridge, name)| {
        let port = pair.fri.port(name).unwrap();
        pair.fri.run(&format!("ip link add {bridge} type bridge")).unwrap();
        for (link, rest) in [
            (device, format!("master {bridge}")),
            (name, format!("master {bridge}")),
            (bridge, String::new()),
        ] {
            pair.fri.run(&format!("ip link set {link} {rest} up")).unwrap();
        }
        port
    });

    let mut sender = Sender::new(&pair);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32;
    let mut newest = PacketId { seq: 1, time };
    wait_until("both are ready", SOON, || {
        sender.send(newest, &PING);
        newest.seq += 1;
        fri.text().contains(UP) && real.text().contains(READY)
    })
    .unwrap();

    let mut dice = Dice(9);
    let mut came: [Vec<u32>; 2] = [vec![], vec![]];
    let take = |came: &mut [Vec<u32>; 2]| {
        for (came, port) in came.iter_mut().zip(&ports) {
            came.extend(numbers(port));
        }
    };
    for at in 0..DRAWN {
        let id = next(newest, &mut dice);
        let number = sender.frame(id);
        let is_start = id.time > newest.time;
        if is_start || id.time == newest.time && id.seq > newest.seq {
            newest = id;
        }
        // tund stores a start on disk before it takes its first frame. The sockets' buffers must not overflow either.
        if is_start {
            wait_until("a start is taken", SOON, || {
                take(&mut came);
                came.iter().all(|came| came.last() == Some(&number))
            })
            .unwrap();
        } else if at % 50 == 0 {
            take(&mut came);
        }
    }
    // One that is too late, and one that is not.
    let overtaken = |sender: &mut Sender, newest: &mut PacketId, pause| {
        newest.seq += 2;
        sender.frame(*newest);
        sleep(pause);
        sender.frame(PacketId { seq: newest.seq - 1, ..*newest })
    };
    let prompt = overtaken(&mut sender, &mut newest, Duration::from_secs(1));
    let late = overtaken(&mut sender, &mut newest, LATE);
    take(&mut came);
    assert_eq!(came[0], came[1], "tund, and OpenVPN");
    assert!(came[0].contains(&prompt) && !came[0].contains(&late));
    assert!((DRAWN / 3..DRAWN).contains(&came[0].len()), "{}", came[0].len());
}
