//! Everything a link can carry, at once and in both directions, compared byte for byte.
//!
//! ```text
//!  a == lan0 fri 10.0.0.1 eth0 ---- eth0 10.0.0.2 mon lan0 == b
//!             \__ tun0, or tap0 in br0 =========__/
//! ```
//!
//! a and b are the test itself, which writes frames and reads what the kernel puts on a wire, segmenting whatever tund
//! had joined. Input that must be joined, TCP streams and batches of datagrams, comes from sockets of fri and mon.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tund::core::lane::Transmit;
use tund::transport::Datagrams as _;
use tund::transport::udp::Socket;
use tund_lab::{Host, Port};

use super::mix::{Maker, Station};
use super::support::*;
use tund_proto::testing::Dice;

/// Sending time.
const TIME: Duration = Duration::from_millis(1200);
/// Delay before missing items are sent again: queues may be full.
const AGAIN: Duration = Duration::from_millis(250);
/// After so many attempts an item counts as blocked.
const ATTEMPTS: usize = 30;
/// Longer datagrams do not fit a receiver's buffer.
const LONGEST: usize = 4000;

/// The kind of link.
#[derive(Debug, Clone, Copy)]
struct Case {
    bridged: bool,
    handshake: bool,
    offload: bool,
    threads: u8,
}

impl Case {
    /// Both key modes, each with its own mix; `TUND_MIX_SEED` repeats one.
    fn run(self) {
        for handshake in [true, false] {
            let case = Self { handshake, ..self };
            let given = std::env::var("TUND_MIX_SEED").ok().and_then(|seed| seed.parse().ok());
            let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
            let result = std::panic::catch_unwind(|| mix(case, seed));
            assert!(result.is_ok(), "TUND_MIX_SEED={seed} repeats this mix: {case:?}");
        }
    }
}

const ROUTED: Case = Case { bridged: false, handshake: true, offload: true, threads: 1 };
const BRIDGED: Case = Case { bridged: true, ..ROUTED };

#[test]
fn whatever_crosses_a_routed_link_arrives_as_it_was() {
    ROUTED.run();
}

#[test]
fn whatever_crosses_a_bridged_link_arrives_as_it_was() {
    BRIDGED.run();
}

#[test]
fn whatever_crosses_a_routed_link_without_offload_arrives_as_it_was() {
    Case { offload: false, ..ROUTED }.run();
}

#[test]
fn whatever_crosses_a_bridged_link_without_offload_arrives_as_it_was() {
    Case { offload: false, ..BRIDGED }.run();
}

#[test]
fn whatever_crosses_a_routed_link_with_two_threads_arrives_as_it_was() {
    Case { threads: 2, ..ROUTED }.run();
}

#[test]
fn whatever_crosses_a_bridged_link_with_two_threads_arrives_as_it_was() {
    Case { threads: 2, ..BRIDGED }.run();
}

/// The world of a mix.
struct World {
    pair: Pair,
    ports: [Port; 2],
    stations: [Station; 2],
    /// Inner addresses of fri and mon, IPv4 and IPv6.
    inner: [[IpAddr; 2]; 2],
    case: Case,
    mtu: usize,
}

impl World {
    fn new(case: Case, dice: &mut Dice) -> Self {
        let pair = pair();
        let mtu = dice.pick(&[1280, 1421, 1499, if case.bridged { 1500 } else { 1400 }]);
        let outer = dice.pick(&[1500, 1500, 1400, 1300]);
        for host in [&pair.fri, &pair.mon] {
            host.run(&format!("ip link set eth0 mtu {outer}")).unwrap();
        }
        let station = |net: u8, last: u8| {
            let mut v6 = [0; 16];
            (v6[0], v6[1], v6[15]) = (0xfd, net, last);
            Station { mac: [2, 0, 0, 0, net, last], v4: [192, 168, net, last], v6 }
        };
        let ports = [pair.fri.port("lan0").unwrap(), pair.mon.port("lan0").unwrap()];
        let inner = match case.bridged {
            false => ["192.168.86.81 fd86::81", "192.168.86.18 fd86::18"],
            true => ["10.5.0.1 fd05::1", "10.5.0.2 fd05::2"],
        };
        let inner = inner.map(|pair| {
            let mut addresses = pair.split(' ').map(|address| address.parse().unwrap());
            [addresses.next().unwrap(), addresses.next().unwrap()]
        });
        Self { pair, ports, stations: [station(76, 2), station(66, 2)], inner, case, mtu }
    }

    fn configurations(&self) -> [Toml; 2] {
        let Case { bridged, handshake, offload, threads } = self.case;
        let tuning = format!("[tuning]\noffload = {offload}\nthreads = {threads}");
        let device = |own: [IpAddr; 2], peer: [IpAddr; 2]| {
            let list = |[v4, v6]: [IpAddr; 2]| format!("['{v4}', '{v6}']");
            let (own, peer, mtu) = (list(own), list(peer), self.mtu);
            match bridged {
                false => format!("mode = 'tun'\nname = 'tun0'\naddress = {own}\npeer = {peer}\nmtu = {mtu}"),
                true => format!("mode = 'tap'\nname = 'tap0'\nbridge = 'br0'\nmtu = {mtu}"),
            }
        };
        let [fri, mon] = match bridged {
            false => [Toml::tun_fri(), Toml::tun_mon()],
            true => [Toml::tap_fri(), Toml::tap_mon()],
        };
        let [a, b] = self.inner;
        [(fri, device(a, b)), (mon, device(b, a))].map(|(toml, device)| {
            let toml = if handshake { toml.handshake() } else { toml };
            // The routes are set by hand.
            toml.device(&device).with(&tuning).with("[accept]\nsources = 'any'")
        })
    }

    /// Joins the ports to the link: by bridges before it is up, by routes afterwards.
    fn bridge(&self) {
        for (host, [v4, v6]) in self.hosts().into_iter().zip(self.inner) {
            host.run("ip link add br0 type bridge").unwrap();
            host.run(&format!("ip link set br0 up mtu {}", self.mtu)).unwrap();
            host.run("ip link set lan0 master br0").unwrap();
            host.run(&format!("ip addr add {v4}/24 dev br0")).unwrap();
            host.run(&format!("ip addr add {v6}/64 dev br0 nodad")).unwrap();
        }
    }

    fn route(&mut self) {
        for (index, host) in self.hosts().into_iter().enumerate() {
            let own = self.stations[index];
            let far = self.stations[1 - index];
            for family in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                host.sysctl(family, "1").unwrap();
            }
            let mac = own.mac.map(|byte| format!("{byte:02x}")).join(":");
            for (near, beyond) in
                [own.v4.into(), own.v6.into()].into_iter().zip([far.v4.into(), far.v6.into()])
            {
                let (near, beyond): (IpAddr, IpAddr) = (near, beyond);
                host.run(&format!("ip route add {near} dev lan0")).unwrap();
                host.run(&format!("ip neigh add {near} lladdr {mac} nud permanent dev lan0")).unwrap();
                host.run(&format!("ip route add {beyond} dev tun0")).unwrap();
            }
        }
    }

    fn hosts(&self) -> [&Host; 2] {
        [&self.pair.fri, &self.pair.mon]
    }

    /// Frames from the station behind one end go to its host's port, or past it to the far station.
    fn maker(&self, from: usize) -> Maker {
        let mut to = self.stations[1 - from];
        if !self.case.bridged {
            let text = self.hosts()[from].run("ip -brief link show lan0").unwrap();
            let address = text.split_whitespace().nth(2).unwrap().split(':');
            let bytes: Vec<u8> = address.filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
            to.mac = bytes.try_into().unwrap();
        }
        Maker { from: self.stations[from], to, mtu: self.mtu, bridged: self.case.bridged }
    }
}

fn mix(case: Case, seed: u64) {
    let mut dice = Dice(seed);
    let mut world = World::new(case, &mut dice);
    let [fri, mon] = world.configurations();
    if case.bridged {
        world.bridge();
    }
    let (fri, mon) = world.pair.link(&fri, &mon);
    if !case.bridged {
        world.route();
    }
    for (host, [_, v6]) in world.hosts().into_iter().zip(world.inner) {
        await_address(host, &v6.to_string());
    }
    let seeds = [(); 8].map(|()| dice.number());
    // Shared by both phases: what was sent twice in the first may arrive in the second.
    let ledgers = [Ledger::default(), Ledger::default()];
    thread::scope(|scope| {
        for from in [0, 1] {
            let (world, ledger) = (&world, &ledgers[from]);
            scope.spawn(move || frames(world, from, Dice(!seeds[from]), ledger, true));
        }
    });
    thread::scope(|scope| {
        for from in [0, 1] {
            let (world, ledger) = (&world, &ledgers[from]);
            scope.spawn(move || frames(world, from, Dice(seeds[from]), ledger, false));
            scope.spawn(move || datagrams(world, from, Dice(seeds[2 + from])));
            for family in [0, 1] {
                scope.spawn(move || stream(world, from, family, seeds[4 + 2 * from + family]));
            }
        }
        let target = world.inner[1][dice.within(0, 1)];
        let (size, class) = (dice.within(16, world.mtu - 48), dice.within(0, 3));
        let text = world.pair.fri.run(&format!("ping -n -c 20 -i 0.05 -s {size} -Q {class} {target}"));
        let text = text.unwrap();
        // Losses in full queues depend on the machine, but what arrives must be intact.
        assert!(answered(&text) >= 3 && !text.contains("wrong data"), "{text}");
    });
    for end in [&fri, &mon] {
        let mark = end.mark();
        end.signal(Signal::USR2).unwrap();
        let counted = end.wait_line_after(mark, "received", SOON).unwrap();
        for reason in ["malformed", "bad-tag", "congested", "too-big"] {
            assert!(!counted.contains(reason), "{counted}");
        }
        assert!(!end.text().contains("alone"), "something was given up: {}", end.text());
    }
}

/// What was sent and received in one direction.
#[derive(Default)]
struct Ledger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sent: HashSet<Vec<u8>>,
    got: HashSet<Vec<u8>>,
    /// Arrivals since this was last emptied, in order.
    arrivals: Vec<Vec<u8>>,
    /// The first arrival that was never sent.
    strange: Option<Vec<u8>>,
}

impl Ledger {
    fn arrived(&self, item: Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        if !state.sent.contains(&item) {
            state.strange.get_or_insert(item);
        } else {
            state.got.insert(item.clone());
            state.arrivals.push(item);
        }
        self.changed.notify_all();
    }

    /// Sends everything until it has all arrived. `quiet`: nothing else is sent, so nothing is lost and flows arrive in
    /// order.
    fn deliver(&self, runs: &[Vec<Vec<u8>>], quiet: bool, mut send: impl FnMut(&[usize])) {
        let items: Vec<_> = runs.iter().flatten().collect();
        {
            let mut state = self.state.lock().unwrap();
            state.sent.extend(items.iter().map(|item| item.to_vec()));
            state.arrivals.clear();
        }
        let mut missing: Vec<usize> = (0..items.len()).collect();
        for attempt in 0..ATTEMPTS {
            send(&missing);
            let waits = |state: &mut State| {
                state.strange.is_none() && items.iter().any(|item| !state.got.contains(*item))
            };
            let state = self.state.lock().unwrap();
            let (state, _) = self.changed.wait_timeout_while(state, AGAIN, waits).unwrap();
            if let Some(strange) = &state.strange {
                let near = items.iter().min_by_key(|item| distance(item, strange));
                panic!("nobody sent this:\n{}\nbut perhaps this:\n{}", lines(strange), lines(near.unwrap()));
            }
            missing.retain(|index| !state.got.contains(items[*index]));
            if missing.is_empty() {
                if quiet && attempt == 0 {
                    runs.iter().for_each(|run| assert_in_order(run, &state.arrivals));
                }
                return;
            }
        }
        panic!("{} of {} never arrive, as {:02x?}", missing.len(), items.len(), items[missing[0]]);
    }
}

/// Bytes in lines short enough for any log.
fn lines(bytes: &[u8]) -> String {
    bytes.chunks(32).map(|chunk| format!("{chunk:02x?}\n")).collect()
}

fn distance(one: &[u8], two: &[u8]) -> usize {
    one.len().abs_diff(two.len()) + one.iter().zip(two).filter(|(a, b)| a != b).count()
}

fn assert_in_order(run: &[Vec<u8>], arrivals: &[Vec<u8>]) {
    let distinct: HashSet<_> = run.iter().collect();
    if distinct.len() == run.len() {
        let places: Vec<_> = run.iter().map(|item| arrivals.iter().position(|other| other == item)).collect();
        assert!(places.is_sorted(), "a flow out of order: {places:?}");
    }
}

/// Runs `deliver` beside `receive`, which collects arrivals until told to stop.
fn beside(deliver: impl FnOnce(), receive: impl Fn() + Sync) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                receive();
            }
        });
        // The other one stops even on a panic.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deliver));
        end.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Frames of every kind between the stations.
fn frames(world: &World, from: usize, mut dice: Dice, ledger: &Ledger, quiet: bool) {
    let maker = world.maker(from);
    let deliver = || {
        let until = Instant::now() + if quiet { TIME / 3 } else { TIME };
        while Instant::now() < until {
            let burst = maker.burst(&mut dice);
            let frames: Vec<_> = burst.iter().flatten().collect();
            // Both hosts are routers.
            let far = |run: &Vec<Vec<u8>>| run.iter().map(|frame| maker.essence(frame, 2).unwrap()).collect();
            let runs: Vec<Vec<_>> = burst.iter().map(far).collect();
            ledger.deliver(&runs, quiet, |missing| {
                missing.iter().for_each(|index| world.ports[from].send(frames[*index]).unwrap());
            });
        }
    };
    beside(deliver, || {
        if let Some(frame) = world.ports[1 - from].receive(Duration::from_millis(20))
            && let Some(item) = maker.essence(&frame, 0)
        {
            ledger.arrived(item);
        }
    });
}

/// Batches of datagrams, which the sender's kernel leaves joined, and single ones, some longer than a packet.
fn datagrams(world: &World, from: usize, mut dice: Dice) {
    let ledger = Ledger::default();
    let family = dice.within(0, 1);
    let [near, far] = [world.inner[from][family], world.inner[1 - from][family]];
    let bind = |host: usize, address| world.hosts()[host].within(move || UdpSocket::bind(address));
    let receiver = bind(1 - from, (far, 5002)).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let sender = Socket::without_error_queue(bind(from, (near, 0)).unwrap().unwrap().into()).unwrap();
    let to = SocketAddr::new(far, 5002).into();
    let deliver = || {
        let until = Instant::now() + TIME;
        while Instant::now() < until {
            let stride = dice.within(1, world.mtu - 48);
            let count = dice.within(1, (60_000 / stride).min(60));
            let class = dice.pick(&[0, 0, 1, 2, 3, 0xb8]);
            let long = dice.within(1, LONGEST);
            let last = dice.within(1, stride);
            let batch = dice.bytes(stride * (count - 1) + last);
            let length = if dice.once_in(3) { long } else { last };
            let alone = dice.bytes(length);
            let runs = [batch.chunks(stride).map(<[u8]>::to_vec).collect(), vec![alone.clone()]];
            let mut first = true;
            ledger.deliver(&runs, false, |missing| {
                if std::mem::take(&mut first) {
                    sender.send(Transmit { bytes: &batch, stride, class, to }).unwrap();
                    let _ = sender.send(Transmit::one(&alone, class, to));
                    return;
                }
                for index in missing {
                    let item = runs[0].get(*index).unwrap_or(&alone);
                    // The queue is full: it is sent again.
                    let _ = sender.send(Transmit::one(item, class, to));
                }
            });
        }
    };
    beside(deliver, || {
        let mut buffer = [0; 65536];
        if let Ok((length, _)) = receiver.recv_from(&mut buffer) {
            ledger.arrived(buffer[..length].to_vec());
        }
    });
}

/// A seeded byte stream, written in pieces of odd lengths.
fn stream(world: &World, from: usize, family: usize, seed: u64) {
    let far = world.inner[1 - from][family];
    let [near_host, far_host] = [world.hosts()[from], world.hosts()[1 - from]];
    let listener = far_host.within(|| TcpListener::bind((far, 5003))).unwrap().unwrap();
    let mut sender = near_host.within(|| TcpStream::connect((far, 5003))).unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    sender.set_write_timeout(Some(SOON)).unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let (mut dice, mut bytes) = (Dice(!seed), Dice(seed));
            sender.set_nodelay(dice.once_in(2)).unwrap();
            let (until, mut total) = (Instant::now() + TIME, 0);
            while Instant::now() < until {
                let longest = dice.pick(&[1, 7, 1000, 5000, 20_000]);
                // Whole numbers, so that the reader draws the same ones.
                let piece = bytes.bytes(8 * dice.within(1, longest));
                let (front, back) = piece.split_at(dice.within(0, piece.len()));
                sender.write_all(front).unwrap();
                sender.write_all(back).unwrap();
                total += piece.len();
            }
            total
        });
        let (mut expected, mut buffer, mut read) = (Dice(seed), vec![0; 1 << 16], 0);
        let mut ahead: Vec<u8> = Vec::new();
        loop {
            let length = match receiver.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("after {read} bytes: {error}"),
            };
            if ahead.len() < length {
                ahead.extend(expected.bytes((length - ahead.len()).next_multiple_of(8)));
            }
            let rest = ahead.split_off(length);
            assert!(buffer[..length] == ahead, "other bytes than were sent, after {read}");
            (ahead, read) = (rest, read + length);
        }
        assert_eq!(read, writer.join().unwrap(), "bytes of a stream");
        assert!(read > 0);
    });
}
