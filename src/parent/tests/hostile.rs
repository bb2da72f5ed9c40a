//! A compromised engine, which knows every message and sends whatever it likes.

mod each;

use crate::core::openvpn::admission::Kept;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use log::Level;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tund_proto::testing::Dice;

use super::*;
use crate::core::keylog::{Entry, Name, Way};
use crate::core::settings::LinkState;
use crate::crypto::suite::Cipher;
use crate::privsep::message::MAX_MESSAGE;

/// How many engines, each with its own random seed.
const ENGINES: u64 = 60;
/// Most actions of each before it ends.
const DEEDS: usize = 200;

/// Signals that a parent watches, with a descriptor each.
const WATCHED: usize = 6;

fn text(dice: &mut Dice) -> String {
    let piece = dice.pick(&["", "\x1b[2J", "ok\nfatal", "é\u{202e}", "$(id)", "a\0b", "link up with"]);
    piece.repeat(dice.pick(&[1, 1, 3, 300]))
}

fn address(dice: &mut Dice) -> SocketAddr {
    let place =
        dice.pick(&["10.0.0.9", "192.168.86.18", "127.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "::"]);
    SocketAddr::new(place.parse().unwrap(), dice.number() as u16)
}

fn net(dice: &mut Dice) -> IpNet {
    let nets =
        "172.16.5.0/24 172.16.0.0/12 0.0.0.0/0 10.0.0.0/8 172.16.5.7/24 ::/0 fd00::/64 192.168.86.0/24";
    let nets: Vec<_> = nets.split(' ').collect();
    dice.pick(&nets).parse().unwrap()
}

fn message(dice: &mut Dice) -> ToParent {
    let traffic = Traffic { bytes_sent: dice.number(), bytes_received: u64::MAX };
    match dice.below(15) {
        0 => ToParent::Locked { protections: text(dice) },
        1 => ToParent::Resolve,
        2 => ToParent::Endpoint(address(dice).into()),
        3 => ToParent::Connect {
            lane: dice.pick(&[0, 0, 1, 2, 255]),
            own_port: dice.number().is_multiple_of(2),
            remote: address(dice),
            local: dice.pick(&[None, Some("127.0.0.1".parse().unwrap()), Some("::1".parse().unwrap())]),
        },
        4 => ToParent::OpenDevice,
        5 => ToParent::LinkUp { endpoint: address(dice).into(), name: text(dice) },
        6 => {
            let count = dice.pick(&[0, 1, 3, 120]);
            ToParent::PushedRoutes { routes: (0..count).map(|_| net(dice)).collect() }
        }
        7 => ToParent::LinkDown { reason: Condition::PeerGoodbye { reason: text(dice) }, traffic },
        8 => ToParent::Traffic(traffic),
        9 => ToParent::Log { level: dice.pick(&[Level::Error, Level::Info, Level::Trace]), text: text(dice) },
        10 => {
            let problem = Some(Condition::PeerGoodbye { reason: text(dice) });
            let rtt = Some(Duration::new(dice.number(), 0));
            let [keys_age, problem_age] = [Some(Duration::MAX); 2];
            ToParent::State(Box::new(LinkState {
                problem,
                problem_age,
                rtt,
                keys_age,
                ..LinkState::default()
            }))
        }
        // This link keeps nothing.
        12 => ToParent::Keep(Kept { own: u32::MAX, admitted: dice.number() as u32 }),
        13 => ToParent::Rerouted { passes: dice.number().is_multiple_of(2) },
        // None was asked for.
        11 => {
            let key = zeroize::Zeroizing::new([dice.number() as u8; 32]).into();
            let name = Name::Slot(dice.number() as u8);
            ToParent::KeyLog(Entry::Traffic {
                way: Way::Out,
                cipher: Cipher::Aes256Gcm,
                name,
                lane: 255,
                key,
            })
        }
        _ => ToParent::Exit {
            end: dice.pick(&[End::Done, End::Failed, End::Unavailable, End::Bug, End::DeviceLost]),
            reason: text(dice),
        },
    }
}

/// One packet with these bytes and descriptors, as our engine never sends it.
fn send_raw(engine: &Fake, bytes: &[u8], descriptors: usize) -> Result<usize, Errno> {
    let null = std::fs::File::open("/dev/null").unwrap();
    let passed = vec![null.as_fd(); descriptors];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors > 0 {
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(engine, &[std::io::IoSlice::new(bytes)], &mut control, flags)
}

/// Whatever the parent does for it meanwhile.
fn assert_only_accepted_routes() {
    for line in ip("route show").1.lines().filter(|line| line.contains("dev tun0")) {
        let to = line.split(' ').next().unwrap();
        let allowed = ["192.168.86.18", "192.168.66.0/24", "172.16.5.0/24", "172.16.0.0/12"];
        assert!(allowed.contains(&to), "{line}");
    }
}

fn misbehave(engine: &Fake, seed: u64) {
    let dice = &mut Dice(seed);
    for _ in 0..dice.below(DEEDS) {
        let sent = match dice.below(200) {
            0 => {
                let length = dice.pick(&[1, 2, 40, MAX_MESSAGE, MAX_MESSAGE + 1, 3 * MAX_MESSAGE]);
                let bytes = dice.bytes(length);
                send_raw(engine, &bytes, dice.pick(&[0, 0, 1, 8]))
            }
            1 => {
                let mut bytes = postcard::to_stdvec(&message(dice)).unwrap();
                let at = dice.below(bytes.len());
                bytes[at] ^= 1 << dice.below(8);
                send_raw(engine, &bytes, 0)
            }
            2 => send_raw(engine, &postcard::to_stdvec(&message(dice)).unwrap(), dice.pick(&[1, 2, 8])),
            3..10 => {
                assert_only_accepted_routes();
                Ok(0)
            }
            // Reads answers now and then.
            10..80 => match engine.receive() {
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => Ok(0),
            },
            _ => send_raw(engine, &postcard::to_stdvec(&message(dice)).unwrap(), 0),
        };
        // The parent has ended it.
        if matches!(sent, Err(Errno::PIPE | Errno::CONNRESET)) {
            return;
        }
    }
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn whatever_a_hostile_engine_sends_the_host_is_left_as_it_was() {
    if !in_own_network("parent::tests::hostile::whatever_a_hostile_engine_sends_the_host_is_left_as_it_was") {
        return;
    }
    let before = ip("route show").1;
    let mut descriptors = None;
    for seed in 0..ENGINES {
        let scratch = Scratch::new();
        let mut config = with_routes(config());
        config.accept.routes = nets("172.16.0.0/12");
        config.tuning.data_path.lanes = Lanes::Count(1 + (seed / 2 % 2) as u8);
        record_every_hook(&mut config, &scratch);
        let rig = Rig { device_later: seed % 2 == 0, ..Rig::new(config, &scratch) };
        rig.run(move |engine| {
            receive(engine);
            engine.set_nonblocking(true).unwrap();
            misbehave(engine, seed);
        });
        assert_nothing_left();
        assert_eq!(ip("route show").1, before, "seed {seed}");
        let hooks = std::fs::read_to_string(scratch.path().join("hooks")).unwrap_or_default();
        assert!(hooks.lines().count() < 60, "seed {seed}: scripts ran without limit");
        // Signal handlers stay for good, and each rig installs its own.
        let open = open_descriptors() - WATCHED * seed as usize;
        assert_eq!(*descriptors.get_or_insert(open), open, "seed {seed}: descriptors are left open");
    }
    assert!(logged("").iter().all(|line| !line.contains(['\n', '\x1b', '\0', '\u{202e}'])));
    assert!(logged("engine: ").len() <= ENGINES as usize, "more than one line for each lock");
}
