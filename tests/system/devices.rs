//! Opening TUN and TAP devices.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, FdFlags, fcntl_getfd, read, write};
use tund::device::{self, VNET_HEADER};
use tund::packet::layer::Mode;
use tund::route::netlink::Netlink;
use tund::sys::attach_queue;

use crate::namespace::{ip, isolated, link_up, sh, unprivileged};

#[test]
fn without_a_name_the_kernel_picks_tun_n_and_tap_n() {
    isolated(|| {
        let first = device::open(Mode::Tun, None, 1).unwrap();
        let second = device::open(Mode::Tun, None, 1).unwrap();
        let tap = device::open(Mode::Tap, None, 1).unwrap();
        assert_eq!([&*first.name, &*second.name, &*tap.name], ["tun0", "tun1", "tap0"]);
        let links = Netlink::open().unwrap().links().unwrap();
        for device in [&first, &second, &tap] {
            let link = links.iter().find(|link| link.name == device.name).unwrap();
            assert_eq!(link.index, device.index);
            assert_eq!(link.kind.as_deref(), Some("tun"));
            assert!(!link.up, "the device is left down");
        }
    });
}

#[test]
fn a_created_device_goes_away_with_its_descriptor() {
    isolated(|| {
        let device = device::open(Mode::Tap, Some("office"), 1).unwrap();
        assert_eq!(device.name, "office");
        let details = ip("-d link show office");
        let details = &details[0]["linkinfo"]["info_data"];
        assert_eq!(details["type"], "tap");
        assert_eq!(details["pi"], false);
        assert_eq!(details["vnet_hdr"], true);
        assert_eq!(details["persist"], false);
        drop(device);
        assert_eq!(Netlink::open().unwrap().link("office").unwrap(), None);
    });
}

#[test]
fn the_descriptor_does_not_block_and_is_not_inherited() {
    isolated(|| {
        let device = device::open(Mode::Tun, None, 1).unwrap();
        assert!(fcntl_getfl(&device.queues[0]).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(&device.queues[0]).unwrap().contains(FdFlags::CLOEXEC));
        sh("ip link set tun0 addrgenmode none");
        link_up(&mut Netlink::open().unwrap(), "tun0");
        assert_eq!(read(&device.queues[0], &mut [0; 2048][..]), Err(Errno::AGAIN));
    });
}

#[test]
fn frames_carry_a_zero_virtio_header_and_nothing_else() {
    isolated(|| {
        let device = device::open(Mode::Tun, None, 1).unwrap();
        sh("ip addr add 192.168.86.81 peer 192.168.86.18 dev tun0");
        link_up(&mut Netlink::open().unwrap(), "tun0");
        let socket = UdpSocket::bind("192.168.86.81:0").unwrap();
        socket.send_to(b"ping", "192.168.86.18:9").unwrap();
        let mut frame = [0xff; 2048];
        let length = next_ipv4(&device, &mut frame);
        assert_eq!(length, VNET_HEADER + 20 + 8 + 4);
        assert_eq!(frame[..VNET_HEADER], [0; VNET_HEADER]);
        assert_eq!(frame[length - 4..length], *b"ping");
        // The way back: with source and destination swapped, every checksum stays valid.
        let (packet, ports) = (VNET_HEADER + 12, VNET_HEADER + 20);
        let (from, to) = frame[packet..packet + 8].split_at_mut(4);
        from.swap_with_slice(to);
        let (from, to) = frame[ports..ports + 4].split_at_mut(2);
        from.swap_with_slice(to);
        assert_eq!(write(&device.queues[0], &frame[..length]), Ok(length));
        let mut answer = [0; 16];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from.to_string()), (&b"ping"[..], "192.168.86.18:9".to_owned()));
    });
}

#[test]
fn a_name_in_use_is_refused_with_the_reason() {
    isolated(|| {
        let _held = device::open(Mode::Tun, Some("vpn"), 1).unwrap();
        let busy = device::open(Mode::Tun, Some("vpn"), 1).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::ResourceBusy);

        let other_mode = device::open(Mode::Tap, Some("vpn"), 1).unwrap_err();
        assert_eq!(other_mode.kind(), ErrorKind::AlreadyExists);

        sh("ip link add br0 type bridge");
        let bridge = device::open(Mode::Tap, Some("br0"), 1).unwrap_err();
        assert_eq!(bridge.kind(), ErrorKind::AlreadyExists);
        assert!(bridge.to_string().contains("(bridge)"), "{bridge}");
    });
}

#[test]
fn a_name_no_interface_can_have_is_refused() {
    isolated(|| {
        for name in ["sixteen-letters-", "a/b", "a b", ".."] {
            let error = device::open(Mode::Tun, Some(name), 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
            assert!(error.to_string().starts_with(name), "{error}");
        }
    });
}

#[test]
fn a_persistent_device_is_adopted_and_stays() {
    isolated(|| {
        sh("ip tuntap add dev kept mode tun vnet_hdr");
        let before = Netlink::open().unwrap().link("kept").unwrap().unwrap();
        let device = device::open(Mode::Tun, Some("kept"), 1).unwrap();
        let held = Netlink::open().unwrap().link("kept").unwrap().unwrap();
        assert_eq!(device.index, before.index);
        drop(device);
        let after = Netlink::open().unwrap().link("kept").unwrap().unwrap();
        assert_eq!((before.index, held.index), (after.index, after.index));
    });
}

/// Queues of a device, and those of them not attached; `None` if it supports only one.
fn queues(name: &str) -> [Option<u64>; 2] {
    let details = ip(&format!("-d link show {name}"));
    let details = &details[0]["linkinfo"]["info_data"];
    ["numqueues", "numdisabled"].map(|count| details[count].as_u64())
}

#[test]
fn a_device_has_several_queues_and_the_first_has_the_frames() {
    isolated(|| {
        let device = device::open(Mode::Tun, Some("many"), 4).unwrap();
        // Those for writing are never attached.
        assert_eq!((device.queues.len(), device.writers.len()), (4, 4));
        assert_eq!(queues("many"), [Some(1), Some(7)]);
        sh("ip link set many addrgenmode none");
        sh("ip addr add 192.168.86.81 peer 192.168.86.18 dev many");
        link_up(&mut Netlink::open().unwrap(), "many");
        let mut frame = [0; 2048];
        // Whatever the kernel hashes by.
        for port in 9..41 {
            let socket = UdpSocket::bind("192.168.86.81:0").unwrap();
            socket.send_to(b"ping", ("192.168.86.18", port)).unwrap();
            next_ipv4(&device, &mut frame);
        }
        for queue in &device.queues {
            assert!(fcntl_getfl(queue).unwrap().contains(OFlags::NONBLOCK));
            assert!(fcntl_getfd(queue).unwrap().contains(FdFlags::CLOEXEC));
            assert_eq!(read(queue, &mut frame[..]), Err(Errno::AGAIN));
        }
        assert_queues_are_attached_and_detached(&device);
        drop(device);
        assert_eq!(Netlink::open().unwrap().link("many").unwrap(), None);
    });
}

/// As an engine that is gone has left them.
fn assert_queues_are_attached_and_detached(device: &device::Device) {
    let last = device.queues.last().unwrap();
    attach_queue(last, true).unwrap();
    assert_eq!(attach_queue(last, true).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(queues("many"), [Some(2), Some(6)]);
    device.detach_others().unwrap();
    assert_eq!(queues("many"), [Some(1), Some(7)]);
}

#[test]
fn of_a_persistent_device_there_are_as_many_queues_as_it_was_made_for() {
    isolated(|| {
        sh("ip tuntap add dev one mode tun");
        sh("ip tuntap add dev many mode tap multi_queue");
        for (name, mode, asked, got) in
            [("one", Mode::Tun, 4, 1), ("many", Mode::Tap, 4, 4), ("many", Mode::Tap, 1, 1)]
        {
            let device = device::open(mode, Some(name), asked).unwrap();
            assert_eq!((device.queues.len(), device.adopted), (got, true), "{name}: {asked}");
        }
        for (name, mode) in [("one", Mode::Tap), ("many", Mode::Tun)] {
            let other = device::open(mode, Some(name), 4).unwrap_err();
            assert_eq!(other.kind(), ErrorKind::AlreadyExists, "{name}: {other}");
        }
    });
}

/// Otherwise the kernel would give them a share of the frames.
#[test]
fn no_second_process_has_queues_of_a_device_that_is_in_use() {
    isolated(|| {
        let held = device::open(Mode::Tun, Some("many"), 2).unwrap();
        for queues in [1, 2] {
            let busy = device::open(Mode::Tun, Some("many"), queues).unwrap_err();
            assert_eq!(busy.kind(), ErrorKind::ResourceBusy, "{busy}");
        }
        assert_eq!(queues("many"), [Some(1), Some(3)]);
        drop(held);
    });
}

#[test]
fn an_adopted_device_forgets_the_settings_of_its_last_user() {
    isolated(|| {
        // Open a tun device, set a 12-byte header and checksum offload, make it persistent.
        let script = r#"
            open(F, "+<", "/dev/net/tun") or die;
            my ($request, $size) = (pack("a16 s x22", "kept", 0x5001), pack("i", 12));
            ioctl(F, 0x400454ca, $request) or die;
            ioctl(F, 0x400454d8, $size) or die;
            ioctl(F, 0x400454d0, 1) or die;
            ioctl(F, 0x400454cb, 1) or die;"#;
        assert!(Command::new("perl").args(["-e", script]).status().unwrap().success());
        let device = device::open(Mode::Tun, Some("kept"), 1).unwrap();
        sh("ip addr add 192.168.86.81 peer 192.168.86.18 dev kept");
        link_up(&mut Netlink::open().unwrap(), "kept");
        let socket = UdpSocket::bind("192.168.86.81:0").unwrap();
        socket.send_to(b"ping", "192.168.86.18:9").unwrap();
        let mut frame = [0xff; 2048];
        assert_eq!(next_ipv4(&device, &mut frame), VNET_HEADER + 20 + 8 + 4);
        assert_eq!(frame[..VNET_HEADER], [0; VNET_HEADER], "the checksum is complete");
    });
}

#[test]
fn without_the_capability_the_error_names_it() {
    isolated(|| {
        let error = unprivileged(|| device::open(Mode::Tun, None, 1).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

#[test]
fn without_the_driver_the_error_says_how_to_load_it() {
    isolated(|| {
        sh("mount -t tmpfs none /dev/net");
        let error = device::open(Mode::Tun, Some("vpn"), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("modprobe tun"), "{error}");
    });
}

/// Reads the next IPv4 packet; the kernel sends IPv6 packets of its own when a device comes up.
fn next_ipv4(device: &device::Device, frame: &mut [u8]) -> usize {
    loop {
        let mut ready = [PollFd::from_borrowed_fd(device.queues[0].as_fd(), PollFlags::IN)];
        let limit = Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(poll(&mut ready, Some(&limit)), Ok(1), "no packet came out of {}", device.name);
        let length = read(&device.queues[0], &mut *frame).unwrap();
        if frame[VNET_HEADER] >> 4 == 4 {
            return length;
        }
    }
}
