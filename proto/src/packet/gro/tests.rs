use proptest::prelude::*;

use super::*;
use crate::packet::gso;
use crate::testing::sample::Sample;

type Written = Vec<(Virtio, Vec<u8>)>;

fn coalesce(layer: Layer, frames: &[Vec<u8>]) -> Written {
    let mut written = Vec::new();
    let mut coalescer = Coalescer::new(layer, true);
    let mut write = |virtio: Virtio, frame: &[u8]| written.push((virtio, frame.to_vec()));
    frames.iter().for_each(|frame| coalescer.push(frame, &mut write));
    coalescer.flush(&mut write);
    coalescer.flush(&mut write);
    written
}

/// Segments everything as the kernel does.
fn cut(layer: Layer, written: &Written) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (virtio, packet) in written {
        assert!(packet.len() <= 65535 + 18);
        let mut packet = packet.clone();
        gso::split(*virtio, &mut packet, layer, |head, tail| frames.push([head, tail].concat())).unwrap();
    }
    frames
}

/// A run of one flow: `count` frames of `segment` bytes, and a last one.
fn run(sample: &Sample, count: usize, segment: usize, last: usize) -> Vec<Sample> {
    let lengths = std::iter::repeat_n(segment, count).chain((last > 0).then_some(last));
    let mut at = 0;
    let numbered = lengths.enumerate().map(|(number, length)| {
        let mut frame = sample.with_payload(&vec![number as u8; length]);
        frame.identification = sample.identification.wrapping_add(number as u16);
        frame.sequence = sample.sequence.wrapping_add(at);
        at += length as u32;
        frame
    });
    numbered.collect()
}

fn build(run: &[Sample]) -> Vec<Vec<u8>> {
    run.iter().map(Sample::build).collect()
}

fn all_kinds() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        for ethernet in [None, Some(None), Some(Some(100))] {
            samples.push(Sample { ethernet, ..Sample::new(v6, tcp) });
        }
    }
    samples
}

#[test]
fn a_run_of_one_flow_becomes_one_super_frame_and_comes_back_whole() {
    for sample in all_kinds() {
        let frames = build(&run(&sample, 20, 1000, 300));
        let written = coalesce(sample.layer(), &frames);
        assert_eq!(written.len(), 1, "{sample:?}");
        assert_eq!(written[0].0.segment, 1000);
        assert_eq!(cut(sample.layer(), &written), frames);
    }
}

#[test]
fn flows_that_take_turns_are_put_together_each() {
    let one = Sample::new(false, true);
    let two = Sample { ports: [40001, 5201], ..one.clone() };
    let runs = [build(&run(&one, 10, 1000, 0)), build(&run(&two, 10, 1000, 0))];
    let frames: Vec<_> = (0..20).map(|n| runs[n % 2][n / 2].clone()).collect();
    let written = coalesce(Layer::Ip, &frames);
    assert_eq!(written.len(), 2);
    let cut = cut(Layer::Ip, &written);
    assert_eq!([cut[..10].to_vec(), cut[10..].to_vec()], runs);
}

#[test]
fn more_flows_than_places_lose_nothing() {
    let flows = (0..FLOWS as u16 * 3).map(|n| Sample { ports: [n, 9], ..Sample::new(true, true) });
    let frames: Vec<_> = flows.flat_map(|flow| build(&run(&flow, 2, 100, 0))).collect();
    assert_eq!(cut(Layer::Ip, &coalesce(Layer::Ip, &frames)), frames);
}

/// Two frames; `change` applies to the second.
fn pair(sample: &Sample, change: impl Fn(&mut Sample)) -> Vec<Vec<u8>> {
    let mut frames = run(sample, 2, 500, 0);
    change(&mut frames[1]);
    build(&frames)
}

#[test]
fn frames_that_differ_in_what_cutting_cannot_give_back_stay_apart() {
    let tcp = Sample::new(false, true);
    let udp = Sample::new(false, false);
    let many = Sample { dont_fragment: false, ..tcp.clone() };
    let v6 = Sample::new(true, true);
    let bridged = Sample { ethernet: Some(Some(1)), ..tcp.clone() };
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("a gap", pair(&tcp, |frame| frame.sequence += 1)),
        ("a repetition", pair(&tcp, |frame| frame.sequence -= 500)),
        ("acknowledgement", pair(&tcp, |frame| frame.acknowledged += 1)),
        ("window", pair(&tcp, |frame| frame.window += 1)),
        ("options", pair(&tcp, |frame| frame.options[7] += 1)),
        ("no options", pair(&tcp, |frame| frame.options.clear())),
        ("FIN", pair(&tcp, |frame| frame.flags |= 1)),
        ("SYN", pair(&tcp, |frame| frame.flags |= 2)),
        ("CWR", pair(&tcp, |frame| frame.flags |= 0x80)),
        ("ECE", pair(&tcp, |frame| frame.flags |= 0x40)),
        ("a mark", pair(&tcp, |frame| frame.class |= 3)),
        ("traffic class", pair(&v6, |frame| frame.class |= 0xb8)),
        ("time to live", pair(&tcp, |frame| frame.ttl -= 1)),
        ("hop limit", pair(&v6, |frame| frame.ttl -= 1)),
        ("DF", pair(&tcp, |frame| frame.dont_fragment = false)),
        ("identification", pair(&many, |frame| frame.identification += 1)),
        ("no data", pair(&tcp, |frame| frame.payload.clear())),
        ("a longer one", pair(&tcp, |frame| frame.payload.push(1))),
        ("a longer datagram", pair(&udp, |frame| frame.payload.push(1))),
        ("a VLAN", pair(&bridged, |frame| frame.ethernet = Some(Some(2)))),
        ("no VLAN", pair(&bridged, |frame| frame.ethernet = Some(None))),
    ];
    for (name, frames) in cases {
        let layer = if name.ends_with("VLAN") { Layer::Ethernet } else { Layer::Ip };
        let written = coalesce(layer, &frames);
        assert_eq!(written.len(), 2, "{name}");
        assert_eq!(written.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>(), frames, "{name}");
    }
    // These fields need not match.
    assert_eq!(coalesce(Layer::Ip, &pair(&tcp, |frame| frame.identification += 9)).len(), 1);
    assert_eq!(coalesce(Layer::Ip, &pair(&many, |_| {})).len(), 1);
}

#[test]
fn udp_stays_apart_where_the_kernel_takes_no_super_frames_of_it() {
    for (tcp, count) in [(false, 5), (true, 1)] {
        let mut written = 0;
        let mut write = |_: Virtio, _: &[u8]| written += 1;
        let mut coalescer = Coalescer::new(Layer::Ip, false);
        build(&run(&Sample::new(false, tcp), 5, 100, 0))
            .iter()
            .for_each(|frame| coalescer.push(frame, &mut write));
        coalescer.flush(&mut write);
        assert_eq!(written, count);
    }
}

#[test]
fn push_and_a_short_frame_end_a_run() {
    let tcp = Sample::new(false, true);
    let mut frames = run(&tcp, 6, 500, 0);
    frames[2].flags |= PSH;
    let written = coalesce(Layer::Ip, &build(&frames));
    assert_eq!(written.iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>(), [1552, 1552]);
    assert_eq!(cut(Layer::Ip, &written), build(&frames));
    let mut frames = run(&tcp, 2, 500, 200);
    frames.extend(run(&Sample { sequence: tcp.sequence + 1200, ..tcp }, 3, 500, 0));
    let written = coalesce(Layer::Ip, &build(&frames));
    assert_eq!(written.len(), 2);
}

#[test]
fn a_wrong_checksum_is_left_for_the_receiver_to_find() {
    for (at, sample) in [(0, Sample::new(false, true)), (1, Sample::new(true, false))] {
        let mut frames = build(&run(&sample, 3, 500, 0));
        let last = frames[at].len() - 1;
        frames[at][last] ^= 1;
        let written = coalesce(Layer::Ip, &frames);
        assert!(written.iter().any(|(virtio, frame)| *virtio == Virtio::PLAIN && *frame == frames[at]));
        assert_eq!(written.len(), 2 + at, "{at}");
    }
}

#[test]
fn a_checksum_that_would_come_back_in_another_form_is_left_alone() {
    let mut frames = build(&run(&Sample::new(false, true), 3, 500, 0));
    let frame = &mut frames[1];
    let word = |frame: &[u8], at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let last = frame.len() - 2;
    // The checksum becomes zero, which has two representations.
    let even = fold(word(frame, last) + word(frame, 36));
    frame[last..].copy_from_slice(&even.to_be_bytes());
    frame[36..38].fill(0xff);
    let written = coalesce(Layer::Ip, &frames);
    assert!(written.iter().any(|(virtio, frame)| *virtio == Virtio::PLAIN && *frame == frames[1]));
    frames[1][36..38].fill(0);
    assert_eq!(coalesce(Layer::Ip, &frames).len(), 1, "zero comes back as it is");
}

#[test]
fn other_packets_pass_alone_and_in_order() {
    let tcp = Sample::new(false, true);
    let mut fragment = tcp.with_payload(&[1; 100]).build();
    fragment[6] |= 0x20;
    let mut options = tcp.with_payload(&[1; 100]).build();
    options[0] = 0x46;
    let mut without_checksum = Sample::new(false, false).with_payload(&[1; 100]).build();
    without_checksum[26..28].fill(0);
    let mut frames = build(&run(&tcp, 2, 500, 0));
    frames.extend([fragment, options, without_checksum.clone(), without_checksum]);
    frames.extend(build(&run(&tcp, 2, 500, 0)));
    let written = coalesce(Layer::Ip, &frames);
    assert_eq!(written.len(), 6);
    assert_eq!(cut(Layer::Ip, &written), frames);
}

#[test]
fn what_is_of_no_flow_passes_those_that_wait() {
    let tcp = Sample::new(false, true);
    let mut icmp = tcp.with_payload(&[1; 60]).build();
    icmp[9] = 1;
    let mut frames = build(&run(&tcp, 4, 500, 0));
    frames.insert(2, icmp.clone());
    let written = coalesce(Layer::Ip, &frames);
    assert_eq!(written.len(), 2);
    assert_eq!(written[0].1, icmp);
}

#[test]
fn padding_of_short_ethernet_frames_is_not_data() {
    let sample = Sample { ethernet: Some(None), options: Vec::new(), ..Sample::new(false, true) };
    let mut frames = build(&run(&sample, 2, 2, 0));
    frames.iter_mut().for_each(|frame| frame.resize(60, 0));
    let written = coalesce(Layer::Ethernet, &frames);
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].1.len(), 14 + 40 + 4);
}

#[test]
fn no_super_frame_is_longer_than_its_length_can_say() {
    for sample in all_kinds() {
        let frames = build(&run(&sample, 130, 1400, 0));
        let written = coalesce(sample.layer(), &frames);
        assert!(written.len() >= 3);
        assert_eq!(cut(sample.layer(), &written), frames);
    }
    let udp = build(&run(&Sample::new(false, false), 130, 10, 0));
    assert_eq!(coalesce(Layer::Ip, &udp).len(), 3, "64, 64 and 2 datagrams");
}

proptest! {
    /// Mixes flows that have every flaw: after segmentation, each flow comes out as it went in.
    #[test]
    fn each_flow_comes_out_as_it_went_in(
        steps in prop::collection::vec((0u16..12, 0usize..4, 0u8..40, 0usize..3), 1..120),
        v6: bool, tcp: bool, ethernet: bool,
    ) {
        let base = Sample { ethernet: ethernet.then_some(None), ..Sample::new(v6, tcp) };
        let mut flows: Vec<_> = (0..12).map(|n| Sample { ports: [n, 1], ..base.clone() }).collect();
        let mut frames = Vec::new();
        for (number, (flow, length, flaw, byte)) in steps.into_iter().enumerate() {
            let flow = &mut flows[usize::from(flow)];
            let mut frame = flow.with_payload(&vec![byte as u8; [0, 90, 100, 100][length]]);
            match flaw {
                0 => frame.flags |= 1,
                1 => frame.flags |= PSH,
                2 => frame.sequence += 1,
                3 => frame.class = 2,
                4 => frame.dont_fragment = false,
                5 => frame.window = number as u16,
                _ => {}
            }
            flow.sequence += frame.payload.len() as u32;
            flow.identification += 1;
            let mut frame = frame.build();
            if flaw == 6 {
                *frame.last_mut().unwrap() ^= 0x55;
            }
            frames.push(frame);
        }
        let [_, transport, _] = base.places();
        let out = cut(base.layer(), &coalesce(base.layer(), &frames));
        for flow in 0..12u16 {
            let of_flow = |frames: &[Vec<u8>]| frames.iter()
                .filter(|frame| frame[transport..transport + 2] == flow.to_be_bytes())
                .cloned().collect::<Vec<_>>();
            prop_assert_eq!(of_flow(&out), of_flow(&frames), "flow {}", flow);
        }
    }

    #[test]
    fn no_frame_is_too_strange(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20), ethernet: bool) {
        let layer = if ethernet { Layer::Ethernet } else { Layer::Ip };
        let written = coalesce(layer, &frames);
        prop_assert_eq!(written.len(), frames.len());
    }
}
