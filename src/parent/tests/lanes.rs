//! A link with several lanes.

use socket2::SockRef;

use super::*;
use crate::config::Lanes;
use crate::report::exit::UNAVAILABLE;
use crate::sys::attach_queue;

fn with_lanes(lanes: Lanes) -> Config {
    let mut config = config();
    config.tuning.data_path.lanes = lanes;
    config
}

fn started(engine: &Fake) -> (LinkSettings, Vec<OwnedFd>) {
    match receive(engine) {
        (ToEngine::Start(start), descriptors) => (start.link.clone(), descriptors),
        (other, _) => panic!("{other:?}"),
    }
}

/// Both addresses of a socket.
fn ends(socket: &OwnedFd) -> [SocketAddr; 2] {
    let socket = SockRef::from(socket);
    [socket.local_addr(), socket.peer_addr()].map(|end| end.unwrap().as_socket().unwrap())
}

#[test]
fn each_lane_has_a_queue_and_a_socket_and_there_is_no_other_lane() {
    if !in_own_network("parent::tests::lanes::each_lane_has_a_queue_and_a_socket_and_there_is_no_other_lane")
    {
        return;
    }
    let scratch = Scratch::new();
    let code = Rig::new(with_lanes(Lanes::Count(3)), &scratch).run(|engine| {
        let (settings, descriptors) = started(engine);
        assert_eq!((settings.lanes, descriptors.len()), (3, 7), "socket, queues, and those to write to");
        let [front, first, others @ ..] = &descriptors[..] else { panic!() };
        assert!(attach_queue(first, true).is_err(), "it is not attached");
        for queue in others {
            attach_queue(queue, true).unwrap();
            attach_queue(queue, false).unwrap();
        }
        let port = SockRef::from(front).local_addr().unwrap().as_socket().unwrap().port();
        let remote = SocketAddr::from(([127, 0, 0, 1], 1417));
        for (lane, own_port) in [(0, false), (2, true), (1, true), (2, true)] {
            // Unknown lanes are not answered.
            for lane in [3, 16, 255] {
                tell(engine, ToParent::Connect { lane, own_port, remote, local: None });
            }
            tell(engine, ToParent::Connect { lane, own_port, remote, local: None });
            let (message, sockets) = receive(engine);
            assert_eq!(message, ToEngine::Connected { lane, remote, local: None });
            let [local, peer] = ends(&sockets[0]);
            assert_eq!((local.port() != port, peer), (own_port, remote), "{lane}");
        }
        tell(engine, ToParent::Connect { lane: 3, own_port: true, remote, local: None });
        stop(engine);
    });
    assert_eq!(code, 0);
    assert_nothing_left();
}

#[test]
fn a_device_that_was_made_for_one_queue_gives_one_lane_where_the_file_leaves_that_open() {
    const NAME: &str = "a_device_that_was_made_for_one_queue_gives_one_lane_where_the_file_leaves_that_open";
    if !in_own_network(&format!("parent::tests::lanes::{NAME}")) {
        return;
    }
    let scratch = Scratch::new();
    assert!(ip("tuntap add dev one mode tun").0);
    for (lanes, expected) in [(Lanes::Auto, 0), (Lanes::Count(1), 0), (Lanes::Count(2), UNAVAILABLE)] {
        let mut config = with_lanes(lanes);
        config.device.name = Some("one".to_owned());
        let code = Rig::new(config, &scratch).run(move |engine| {
            let (settings, descriptors) = started(engine);
            assert_eq!((settings.lanes, descriptors.len()), (1, 2), "{lanes:?}");
            stop(engine);
        });
        assert_eq!(code, expected, "{lanes:?}");
        assert!(ip("link show dev one").0);
    }
}

#[test]
fn a_link_whose_device_comes_later_has_one_lane() {
    if !in_own_network("parent::tests::lanes::a_link_whose_device_comes_later_has_one_lane") {
        return;
    }
    let scratch = Scratch::new();
    let rig = Rig { device_later: true, ..Rig::new(with_lanes(Lanes::Count(4)), &scratch) };
    let code = rig.run(|engine| {
        assert_eq!(started(engine).0.lanes, 1);
        tell(engine, ToParent::OpenDevice);
        let (message, descriptors) = receive(engine);
        assert_eq!((message, descriptors.len()), (ToEngine::Device, 1));
        stop(engine);
    });
    assert_eq!(code, 0);
}
