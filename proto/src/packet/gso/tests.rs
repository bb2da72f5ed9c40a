use proptest::prelude::*;

use super::*;
use crate::testing::sample::Sample;

fn super_frame(sample: &Sample, segment: u16) -> (Virtio, Vec<u8>) {
    let [_, transport, headers] = sample.places();
    let kind = match (sample.tcp, sample.v6) {
        (true, false) => Kind::TcpV4,
        (true, true) => Kind::TcpV6,
        (false, _) => Kind::Udp,
    };
    let place = if sample.tcp { 16 } else { 6 };
    let virtio = Virtio { checksum: Some((transport as u16, place)), kind, headers: headers as u16, segment };
    (virtio, sample.build_partial())
}

/// The frames of a super-frame, each built on its own.
fn expected(sample: &Sample, segment: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<_> = sample.payload.chunks(segment).collect();
    let last = pieces.len() - 1;
    let mut frames = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let mut frame = sample.with_payload(piece);
        frame.identification = sample.identification.wrapping_add(number as u16);
        frame.sequence = sample.sequence.wrapping_add((number * segment) as u32);
        frame.flags &= if number == last { 0xff } else { !(FIN | PSH) };
        frame.flags &= if number == 0 { 0xff } else { !CWR };
        frames.push(frame.build());
    }
    frames
}

fn frames(virtio: Virtio, mut packet: Vec<u8>, layer: Layer) -> Result<Vec<Vec<u8>>, Unfit> {
    let mut frames = Vec::new();
    split(virtio, &mut packet, layer, |head, tail| frames.push([head, tail].concat()))?;
    Ok(frames)
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn samples() -> impl Strategy<Value = Sample> {
    let carrier = prop_oneof![Just(None), Just(Some(None)), (0u16..4096).prop_map(|tag| Some(Some(tag)))];
    (carrier, any::<(bool, bool, bool)>(), any::<(u8, u16, u32, u8)>(), 0usize..=10, 1usize..9000).prop_map(
        |(ethernet, (v6, tcp, dont_fragment), (class, identification, sequence, flags), words, length)| {
            let mut sample = Sample::new(v6, tcp);
            (sample.ethernet, sample.class, sample.dont_fragment) = (ethernet, class, dont_fragment);
            (sample.identification, sample.sequence) = (identification, sequence);
            sample.flags = flags & 0xd9 | 0x10;
            if tcp {
                sample.options = vec![1; words * 4];
            }
            sample.payload = payload(length);
            sample
        },
    )
}

proptest! {
    #[test]
    fn a_super_frame_is_cut_into_the_frames_that_its_sender_meant(sample in samples(), segment in 1u16..3000) {
        let (virtio, packet) = super_frame(&sample, segment);
        let frames = frames(virtio, packet, sample.layer()).unwrap();
        prop_assert_eq!(frames, expected(&sample, segment.into()));
    }

    #[test]
    fn a_checksum_left_open_is_completed(sample in samples()) {
        let place = if sample.tcp { 16 } else { 6 };
        let checksum = Some((sample.places()[1] as u16, place));
        let virtio = Virtio { checksum, ..Virtio::PLAIN };
        let frames = frames(virtio, sample.build_partial(), sample.layer()).unwrap();
        prop_assert_eq!(frames, vec![sample.build()]);
    }

    #[test]
    fn no_header_and_no_frame_is_too_strange(
        header: [u8; 10], start in prop::collection::vec(any::<u8>(), 0..100), valid: bool, ethernet: bool,
        v6: bool, tcp: bool,
    ) {
        let layer = if ethernet { Layer::Ethernet } else { Layer::Ip };
        let mut packet = start;
        if valid {
            let mut sample = Sample::new(v6, tcp);
            sample.ethernet = ethernet.then_some(None);
            sample.payload = packet;
            packet = sample.build_partial();
        }
        let length = packet.len();
        if let Some(virtio) = Virtio::parse(header)
            && let Ok(frames) = frames(virtio, packet, layer)
        {
            prop_assert!(!frames.is_empty());
            prop_assert!(frames.iter().all(|frame| frame.len() <= length));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_gives_nothing() {
    let good = Sample::new(false, true).with_payload(&payload(5000));
    let (virtio, packet) = super_frame(&good, 1000);
    assert_eq!(frames(virtio, packet.clone(), Layer::Ip).unwrap().len(), 5);
    let (start, offset) = virtio.checksum.unwrap();
    let wrong = [
        ("segments of nothing", Virtio { segment: 0, ..virtio }),
        ("no checksum to complete", Virtio { checksum: None, ..virtio }),
        ("another start than the header's", Virtio { checksum: Some((start + 4, offset)), ..virtio }),
        ("a start behind the end", Virtio { checksum: Some((60000, offset)), ..virtio }),
        ("the place of another protocol", Virtio { checksum: Some((start, 6)), ..virtio }),
        ("another family", Virtio { kind: Kind::TcpV6, ..virtio }),
        ("another protocol", Virtio { kind: Kind::Udp, checksum: Some((start, 6)), ..virtio }),
    ];
    for (name, virtio) in wrong {
        assert_eq!(frames(virtio, packet.clone(), Layer::Ip), Err(Unfit), "{name}");
    }
    // Headers that would end before the network header.
    let before = Virtio { kind: Kind::Udp, segment: 1, checksum: Some((0, 6)), ..virtio };
    let framed = [&[0; 12][..], &[8, 0], &packet].concat();
    assert_eq!(frames(before, framed, Layer::Ethernet), Err(Unfit), "a start before the network header");
    for cut in [0, 19, 20, 33, 39, 52] {
        assert_eq!(frames(virtio, packet[..cut].to_vec(), Layer::Ip), Err(Unfit), "cut at {cut}");
    }
    let mut short = packet.clone();
    short[32] = 0x40;
    assert_eq!(frames(virtio, short, Layer::Ip), Err(Unfit), "a TCP header of 16 bytes");
    for checksum in [(19u16, 2u16), (20, 0), (65535, 65535)] {
        let virtio = Virtio { checksum: Some(checksum), ..Virtio::PLAIN };
        assert_eq!(frames(virtio, vec![0x45; 20], Layer::Ip), Err(Unfit), "{checksum:?}");
    }
}

#[test]
fn a_single_frame_passes_as_it_is() {
    let frame = Sample::new(false, true).with_payload(b"data").build();
    assert_eq!(frames(Virtio::PLAIN, frame.clone(), Layer::Ip), Ok(vec![frame]));
    assert_eq!(frames(Virtio::PLAIN, vec![1, 2, 3], Layer::Ethernet), Ok(vec![vec![1, 2, 3]]));
}

/// linux/virtio_net.h calls `hdr_len` a hint.
#[test]
fn the_length_of_the_headers_is_not_believed() {
    for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let sample = Sample::new(v6, tcp).with_payload(&payload(5000));
        let (virtio, packet) = super_frame(&sample, 1000);
        for headers in [0, 1, virtio.headers - 1, virtio.headers + 1, 5100, u16::MAX] {
            let virtio = Virtio { headers, ..virtio };
            assert_eq!(frames(virtio, packet.clone(), Layer::Ip), Ok(expected(&sample, 1000)), "{headers}");
        }
    }
}

#[test]
fn no_segment_is_longer_than_its_length_can_say() {
    for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let sample = Sample::new(v6, tcp).with_payload(&payload(65_000));
        let headers = sample.places()[2];
        let (virtio, packet) = super_frame(&sample, (65_535 - headers) as u16);
        assert_eq!(frames(virtio, packet.clone(), Layer::Ip).unwrap().len(), 1);
        for segment in [virtio.segment + 1, u16::MAX] {
            let virtio = Virtio { segment, ..virtio };
            assert_eq!(frames(virtio, packet.clone(), Layer::Ip), Err(Unfit), "{segment}");
        }
    }
}

#[test]
fn a_udp_checksum_that_would_be_zero_is_written_as_ones() {
    let mut covered = [0; 20];
    covered[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0xff);
    assert_eq!(complete(&mut covered, 0, UDP_CHECKSUM), Ok(()));
    assert_eq!(covered[UDP_CHECKSUM..UDP_CHECKSUM + 2], [0xff; 2], "zero says that there is none");
    let mut covered = [0; 20];
    covered[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0xff);
    assert_eq!(complete(&mut covered, 0, TCP_CHECKSUM), Ok(()));
    assert_eq!(covered, [0; 20], "TCP has no such rule");
}
