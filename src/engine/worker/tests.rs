use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::event::PollFlags;
use socket2::SockRef;
use tund_proto::testing::settings;

use super::send::take_frame;
use super::*;
use crate::config::{DataPath, Lanes};
use crate::core::bulk::Settings;
use crate::core::key_id::KeyId;
use crate::core::lane::{self, Command, Key, KeySlot, ReceiveCommand, SendCommand};
use crate::core::path::Path;
use crate::core::settings::LinkSettings;
use crate::core::stats::DropReason;
use crate::crypto::keys::LinkKeys;
use crate::packet::layer::Mode;
use crate::packet::traffic_class;
use crate::packet::virtio::Virtio;
use crate::sys::ready;
use crate::transport::stream::Stream;
use crate::transport::udp::Socket;

/// Workers of a link.
fn workers_of(threads: u8, device: Option<OwnedFd>) -> (Vec<Worker<Socket>>, Handle<Socket>) {
    let link = LinkSettings { mode: Mode::Tap, bundle: false, ..settings(0) };
    let settings = lane::Settings::new(&link, Arc::new(LinkKeys::new(&[42; 32])), false);
    let data_path =
        DataPath { offload: false, copy_dscp: false, lanes: Lanes::Count(1), threads, busy_poll: 0 };
    let socket = Socket::from_fd(UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap();
    let channels = (tokio::sync::mpsc::channel(8).0, tokio::sync::mpsc::channel(8).0);
    workers(&Settings::Tund(settings), data_path, 1, socket, device.into_iter().collect(), channels).unwrap()
}

#[test]
fn what_was_ordered_is_done_once_the_workers_settled() {
    for threads in [1, 2] {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let (workers, handle) = workers_of(threads, None);
        let key = Key::KeyId(KeyId::new(&LinkKeys::new(&[42; 32]), 7, [1; 4]));
        let to = peer.local_addr().unwrap().into();
        for command in [
            Command::Send(SendCommand::Prepare(KeySlot::Next, key)),
            Command::Send(SendCommand::Switch(KeySlot::Next)),
            Command::Send(SendCommand::Control { body: vec![1; 20], to, under: KeySlot::Current, lane: 0 }),
        ] {
            handle.command(command.into());
        }
        let running: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    worker.run();
                })
            })
            .collect();
        handle.settle();
        assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 57, "it is there without a wait");
        handle.quit();
        running.into_iter().for_each(|thread| thread.join().unwrap());
        handle.settle();
    }
}

#[test]
fn what_icmp_says_of_other_datagrams_keeps_none_waiting() {
    let (mut workers, _handle) = workers_of(1, None);
    let worker = &mut workers[0];
    let [peer, own] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let own = Socket::from_fd(own.into()).unwrap();
    let sockets = [&worker.port.socket, &own].map(|socket| socket.as_fd().try_clone_to_owned().unwrap());
    let [front, own_end] = sockets.map(UdpSocket::from);
    let refuse_and_send = |end: &UdpSocket| {
        peer.send_to(b"x", end.local_addr().unwrap()).unwrap();
        end.send_to(b"x", closed).unwrap();
    };
    let now = clock::now().instant;
    refuse_and_send(&front);
    worker.take_datagrams(now);
    assert_eq!(worker.lane.stats().drops(DropReason::TooShort), 1, "at the front, without a peer");
    worker.take_connected(now, Some(own), false).unwrap();
    refuse_and_send(&own_end);
    worker.take_datagrams(now);
    assert_eq!(worker.lane.stats().drops(DropReason::TooShort), 2, "at the peer's own socket");
    refuse_and_send(&front);
    worker.serve_front();
    assert_eq!(worker.lane.stats().drops(DropReason::TooShort), 3, "at the front, beside it");
    let left = worker.port.socket.receive_error().unwrap_err();
    assert_eq!(left.kind(), io::ErrorKind::WouldBlock, "taken within the turn, which is followed by a rest");
}

#[test]
fn what_icmp_says_of_the_peer_is_passed_on_without_a_queue_of_errors() {
    let (mut workers, _handle) = workers_of(1, None);
    let worker = &mut workers[0];
    let (engine, mut told) = tokio::sync::mpsc::channel(8);
    worker.port.engine = engine;
    let [peer, own] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let now = clock::now().instant;
    let to = peer.local_addr().unwrap();
    own.connect(to).unwrap();
    drop(peer);
    own.send(b"x").unwrap();
    let own = Socket::without_error_queue(own.into()).unwrap();
    worker.take_connected(now, Some(own), false).unwrap();
    worker.take_datagrams(now);
    let refused = told.try_recv();
    assert!(matches!(refused, Ok(FromWorker::Notice(Notice::Refused { to: of })) if of == to));
}

#[test]
fn what_waits_at_the_front_comes_before_what_the_peers_own_socket_gets() {
    let (mut workers, _handle) = workers_of(1, None);
    let worker = &mut workers[0];
    let front = SockRef::from(&worker.port.socket).local_addr().unwrap().as_socket().unwrap();
    let [peer, own] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    peer.send_to(b"x", front).unwrap();
    let own = Socket::from_fd(own.into()).unwrap();
    worker.take_connected(clock::now().instant, Some(own), false).unwrap();
    assert_eq!(worker.lane.stats().drops(DropReason::TooShort), 1);
}

/// What a tap device gives for a datagram with this much payload.
fn read_of(port: u8, payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 28];
    (packet[0], packet[9], packet[23]) = (0x45, 17, port);
    packet[2..4].copy_from_slice(&(28 + payload as u16).to_be_bytes());
    [&[0; virtio::HEADER][..], &[2; 12], &[8, 0], &packet, &vec![7; payload]].concat()
}

#[test]
fn a_small_frame_passes_those_of_another_flow_that_were_there_before() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (kernel, device) = UnixDatagram::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    for _ in 0..8 {
        kernel.send(&read_of(1, 1000)).unwrap();
    }
    kernel.send(&read_of(2, 10)).unwrap();
    let (workers, handle) = workers_of(1, Some(device.into()));
    let key = Key::KeyId(KeyId::new(&LinkKeys::new(&[42; 32]), 7, [1; 4]));
    for command in [
        Command::Send(SendCommand::Prepare(KeySlot::Next, key)),
        Command::Send(SendCommand::Switch(KeySlot::Next)),
        Command::Send(SendCommand::Endpoint(peer.local_addr().unwrap().into())),
        Command::Send(SendCommand::Agreed(true)),
        Command::Send(SendCommand::Budget(1200)),
    ] {
        handle.command(command.into());
    }
    let running: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(|| worker.run())).collect();
    // A child of another test may end meanwhile, and interrupt the socket's own wait.
    let receive = || {
        assert!(ready(&peer, PollFlags::IN, Duration::from_secs(5)).unwrap());
        peer.recv(&mut [0; 2000]).unwrap()
    };
    let lengths: Vec<usize> = (0..9).map(|_| receive()).collect();
    handle.quit();
    running.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(lengths[0] < 200 && lengths[1..].iter().all(|length| *length > 1000), "{lengths:?}");
}

#[test]
fn a_small_frame_passes_what_a_slow_stream_holds_back() {
    let (kernel, device) = UnixDatagram::pair().unwrap();
    kernel.set_nonblocking(true).unwrap();
    device.set_nonblocking(true).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let path = Path::stream(listener.local_addr().unwrap());
    let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&connection).set_send_buffer_size(4096).unwrap();
    connection.set_nonblocking(true).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_nonblocking(true).unwrap();
    let keys = Arc::new(LinkKeys::new(&[42; 32]));
    let mut far = Stream::new(far.into(), path, keys.clone(), [3; 16]);
    let (workers, handle) = workers_of(1, Some(device.into()));
    let key = Key::KeyId(KeyId::new(&keys, 7, [1; 4]));
    for command in [
        Command::Send(SendCommand::Prepare(KeySlot::Next, key)),
        Command::Send(SendCommand::Switch(KeySlot::Next)),
        Command::Send(SendCommand::Endpoint(path)),
        Command::Send(SendCommand::Agreed(true)),
        Command::Send(SendCommand::Budget(1200)),
    ] {
        handle.command(command.into());
    }
    handle.stream(path, Some(connection.into()));
    let running: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(|| worker.run())).collect();
    let patiently = |done: &mut dyn FnMut() -> bool| {
        (0..50).any(|_| {
            done() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    // Fill the queue with one flow, then add a frame of another.
    while patiently(&mut || kernel.send(&read_of(1, 1000)).is_ok()) {}
    let (mut is_sent, mut lengths) = (false, Vec::new());
    while patiently(&mut || {
        is_sent = is_sent || kernel.send(&read_of(2, 10)).is_ok();
        far.receive().is_ok()
    }) {
        while let Some(datagram) = far.next_datagram().unwrap() {
            lengths.push(datagram.len());
        }
    }
    handle.quit();
    running.into_iter().for_each(|thread| thread.join().unwrap());
    let behind = lengths.iter().rev().position(|length| *length < 200).unwrap();
    assert!(behind > 50, "{behind} datagrams of {} came after the small one", lengths.len());
}

#[test]
fn a_queue_that_stands_costs_one_segment_or_a_mark() {
    let (workers, _handle) = workers_of(1, None);
    let Worker { mut lane, mut port, layer, .. } = workers.into_iter().next().unwrap();
    let virtio = Virtio { checksum: Some((34, 16)), kind: virtio::Kind::TcpV4, headers: 54, segment: 100 };
    let mut packet = vec![0; 40];
    (packet[0], packet[9], packet[32]) = (0x45, 6, 0x50);
    let mut read = [&virtio.emit()[..], &[2; 12], &[8, 0], &packet, &[7; 300]].concat();
    let class = virtio::HEADER + 15;
    let (mut passed, mut given_up) = (0, 0);
    for (ecn, should_drop, segments, lost) in [(0, false, 3, 0), (0, true, 2, 1), (2, true, 3, 0)] {
        read[class] = ecn;
        let mut sheds_now = should_drop;
        take_frame(&mut read.clone(), layer, false, &mut sheds_now, &mut lane, &mut port);
        assert!(!sheds_now, "one is enough");
        // Without a peer, the lane counts the frames it gets.
        (passed, given_up) = (passed + segments, given_up + lost);
        assert_eq!(lane.stats().drops(DropReason::NoPeer), passed);
        assert_eq!(port.drops.drops(DropReason::QueueFull), given_up);
    }
    let mut marked = read.clone();
    take_frame(&mut marked, layer, false, &mut true, &mut lane, &mut port);
    assert_eq!(marked[class], traffic_class::CE);
    // Of single frames, only one of a flow with more waiting is dropped.
    for more in [false, true] {
        let mut should_drop = true;
        take_frame(&mut read_of(1, 1000), layer, more, &mut should_drop, &mut lane, &mut port);
        assert_eq!(
            (should_drop, port.drops.drops(DropReason::QueueFull)),
            (!more, given_up + u64::from(more))
        );
    }
}

#[test]
fn a_command_goes_to_the_thread_of_its_half_alone() {
    let arrived = |worker: &Worker<Socket>| worker.orders.try_iter().count();
    for (threads, expected) in [(1, [2, 0]), (2, [1, 1])] {
        let (workers, handle) = workers_of(threads, None);
        handle.command(Command::from(SendCommand::Budget(1200)).into());
        handle.command(Command::from(ReceiveCommand::Sources(None)).into());
        let counts: Vec<_> = workers.iter().map(arrived).collect();
        assert_eq!(counts, expected[..workers.len()], "{threads} threads");
        handle.report();
        assert!(workers.iter().all(|worker| arrived(worker) == 1), "a report is of both");
    }
}

#[test]
fn a_thread_that_panics_is_noticed_beside_those_that_go_on() {
    let (sender, mut notices) = tokio::sync::mpsc::channel(1);
    let _other = sender.clone();
    let thread = std::thread::spawn(move || {
        let _watched = Watched(sender);
        panic!("as a defect does");
    });
    assert!(thread.join().is_err());
    assert!(matches!(notices.try_recv(), Ok(FromWorker::Died)));
    let (sender, mut notices) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || drop(Watched(sender))).join().unwrap();
    assert!(notices.try_recv().is_err(), "one that quits is no defect");
}
