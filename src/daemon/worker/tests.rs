use std::net::UdpSocket;
use std::sync::Arc;

use super::*;
use crate::config::Cipher;
use crate::core::inner::Inner;
use crate::core::lane::{Key, Under};
use crate::core::sid::Sid;
use crate::crypto::keys::LinkKeys;
use crate::wire::datagram::Framing;

/// Workers of a link without a device.
fn idle_workers(threads: u8) -> (Vec<Worker>, Handle) {
    let settings = Settings {
        keys: Arc::new(LinkKeys::new(&[42; 32])),
        framing: Framing::Static,
        cipher: Cipher::ChaCha20Poly1305,
        direction: 0,
        lane: 0,
        max_frame: 1400,
        bundle: true,
        copy_dscp: false,
        inner: Inner::bridged(),
    };
    let data_path = DataPath { offload: false, copy_dscp: false, threads, busy_poll: 0 };
    let socket = Socket::from_fd(UdpSocket::bind("127.0.0.1:0").unwrap().into()).unwrap();
    let channels = (tokio::sync::mpsc::channel(8).0, tokio::sync::mpsc::channel(8).0);
    workers(&settings, data_path, socket, None, channels).unwrap()
}

#[test]
fn what_was_ordered_is_done_once_the_workers_settled() {
    for threads in [1, 2] {
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_nonblocking(true).unwrap();
        let (workers, handle) = idle_workers(threads);
        let key = Key::Sid(Sid::new(&LinkKeys::new(&[42; 32]), 7, [1; 4]));
        let to = peer.local_addr().unwrap().into();
        for command in [
            Command::Prepare(Under::Next, key),
            Command::Switch(Under::Next),
            Command::Control { body: vec![1; 20], to, under: Under::Current },
        ] {
            handle.send(ToWorker::Lane(command));
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
        handle.send(ToWorker::Quit);
        running.into_iter().for_each(|thread| thread.join().unwrap());
        handle.settle();
    }
}
