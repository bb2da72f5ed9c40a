use std::collections::BTreeMap;

use tund::packet::gro::Coalescer;
use tund::packet::gso;
use tund::packet::layer::Layer;
use tund::packet::virtio::{HEADER, Kind, Virtio};

use crate::script::Script;

/// Most frames that a script makes.
const FRAMES: usize = 2000;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Segments a device's input, however wrong its virtio header; joins the frames and segments them again. The first byte
/// selects the kind of device.
pub fn super_frames(data: &[u8]) {
    let mut script = Script(data);
    let way = script.byte();
    let layer = if way & 1 == 0 { Layer::Ip } else { Layer::Ethernet };
    let mut frames = Vec::new();
    while !script.is_over() && frames.len() < FRAMES {
        match script.byte() {
            way if way & 3 == 0 => hostile(&mut script, layer, &mut frames),
            way if way & 3 == 1 => frames.push(script.counted().to_vec()),
            way => sound(&mut script, layer, way, &mut frames),
        }
    }
    let again = joined_and_cut(layer, way & 2 == 0, &frames);
    assert_eq!(by_flow(layer, &again), by_flow(layer, &frames));
}

/// Any header with any bytes.
fn hostile(script: &mut Script<'_>, layer: Layer, frames: &mut Vec<Vec<u8>>) {
    let mut header = [0; HEADER];
    let given = script.bytes(HEADER);
    header[..given.len()].copy_from_slice(given);
    let packet = script.counted().to_vec();
    let Some(virtio) = Virtio::parse(header) else { return };
    let before = frames.len();
    let result = cut(virtio, packet.clone(), layer, frames);
    let new = &frames[before..];
    assert_eq!(result.is_ok(), !new.is_empty(), "all or nothing");
    assert!(new.iter().all(|frame| frame.len() <= packet.len()), "no frame is longer than all of them");
}

/// A well-formed super-frame with a matching header or, now and then, another.
fn sound(script: &mut Script<'_>, layer: Layer, way: u8, frames: &mut Vec<Vec<u8>>) {
    let (v4, tcp) = (way & 4 == 0, way & 8 == 0);
    let (flow, flags) = (script.byte() & 15, script.byte());
    let (sequence, options) = (u32::from(script.number()), usize::from(script.byte() % 11) * 4);
    let (length, segment) = (usize::from(script.number() & 0x3fff) + 1, script.number() & 0xfff);
    let mut packet = network(layer, v4, if tcp { TCP } else { UDP }, flow);
    let transport = packet.len();
    packet.extend([0x90, flow, 0x14, 0x51]);
    let place = if tcp {
        packet.extend((sequence << 4).to_be_bytes());
        packet.extend([0, 0, 0, 9, (20 + options as u8) << 2, flags, 1, 1, 0, 0, 0, 0]);
        packet.extend(vec![1; options]);
        16
    } else {
        packet.extend([0; 4]);
        6
    };
    let headers = packet.len();
    packet.extend((0..length).map(|n| (n ^ n >> 8) as u8 ^ flow));
    write_pseudo_header(&mut packet, transport, v4, place);
    let kind = match (tcp, v4) {
        (true, true) => Kind::TcpV4,
        (true, false) => Kind::TcpV6,
        (false, _) => Kind::Udp,
    };
    let mut virtio =
        Virtio { checksum: Some((transport as u16, place as u16)), kind, headers: script.number(), segment };
    if way & 0xf0 == 0xf0 {
        virtio.checksum = Some((script.number(), script.number()));
    }
    let as_it_is = virtio.checksum == Some((transport as u16, place as u16));
    let before = frames.len();
    let result = cut(virtio, packet, layer, frames);
    if as_it_is && segment > 0 {
        assert_eq!(result, Ok(()));
        let new = &frames[before..];
        assert_eq!(new.len(), length.div_ceil(segment.into()));
        assert!(new.iter().all(|frame| is_right(frame, transport, v4)), "every checksum is right");
        let carried = new.iter().map(|frame| frame.len() - headers).sum::<usize>();
        assert_eq!(carried, length, "every byte is there once");
    } else {
        assert_eq!(result, Err(gso::Unfit));
    }
}

/// The headers below the transport layer. Segmentation sets their lengths.
fn network(layer: Layer, v4: bool, protocol: u8, flow: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    if layer == Layer::Ethernet {
        packet.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        if flow & 8 != 0 {
            packet.extend([0x81, 0, 0, flow]);
        }
        packet.extend(if v4 { [8, 0] } else { [0x86, 0xdd] });
    }
    if v4 {
        let dont_fragment = if flow & 4 == 0 { 0x40 } else { 0 };
        packet.extend([0x45, flow & 3, 0, 0, 1, flow, dont_fragment, 0, 64, protocol, 0, 0]);
        packet.extend([10, 0, 0, 1, 10, 0, 0, flow]);
    } else {
        packet.extend([0x60, flow & 3, 0, 0, 0, 0, protocol, 64]);
        packet.extend([0xfd; 31]);
        packet.push(flow);
    }
    packet
}

/// Leaves the checksum partial, as the kernel does.
fn write_pseudo_header(packet: &mut [u8], transport: usize, v4: bool, place: usize) {
    let sum = pseudo_header(packet, transport, v4);
    packet[transport + place..transport + place + 2].copy_from_slice(&sum.to_be_bytes());
}

fn pseudo_header(packet: &[u8], transport: usize, v4: bool) -> u16 {
    let network = transport - if v4 { 20 } else { 40 };
    let (addresses, protocol) = if v4 { (12..20, 9) } else { (8..40, 6) };
    let mut covered = packet[network + addresses.start..network + addresses.end].to_vec();
    covered.extend([0, packet[network + protocol]]);
    covered.extend(((packet.len() - transport) as u32).to_be_bytes());
    slow_sum(&covered)
}

/// Sums word by word and shares no code with what is tested.
fn slow_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [one, two] => u32::from(u16::from_be_bytes([*one, *two])),
        rest => u32::from(rest.first().copied().unwrap_or(0)) << 8,
    });
    words.fold(0u32, |sum, word| if sum + word > 0xffff { sum + word - 0xffff } else { sum + word }) as u16
}

/// Whether a frame's lengths and checksums are right.
fn is_right(frame: &[u8], transport: usize, v4: bool) -> bool {
    let network = transport - if v4 { 20 } else { 40 };
    let number = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let length = if v4 { number(network + 2) } else { number(network + 4) + 40 };
    let covered = [&pseudo_header(frame, transport, v4).to_be_bytes()[..], &frame[transport..]].concat();
    let header = !v4 || slow_sum(&frame[network..transport]) == 0xffff;
    header && length == frame.len() - network && slow_sum(&covered) == 0xffff
}

fn cut(
    virtio: Virtio,
    mut packet: Vec<u8>,
    layer: Layer,
    frames: &mut Vec<Vec<u8>>,
) -> Result<(), gso::Unfit> {
    gso::split(virtio, &mut packet, layer, |head, tail| frames.push([head, tail].concat()))
}

fn joined_and_cut(layer: Layer, udp: bool, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut written = Vec::new();
    let mut write = |virtio: Virtio, frame: &[u8]| written.push((virtio, frame.to_vec()));
    let mut coalescer = Coalescer::new(layer, udp);
    for frame in frames {
        coalescer.push(frame, &mut write);
    }
    coalescer.flush(&mut write);
    let mut again = Vec::new();
    for (virtio, packet) in written {
        assert_eq!(Virtio::parse(virtio.emit()), Some(virtio), "the kernel reads what was meant");
        assert!(udp || virtio.kind != Kind::Udp);
        assert_eq!(cut(virtio, packet, layer, &mut again), Ok(()), "what is joined can be cut up");
    }
    again
}

/// The frames of each flow in order, normalised.
fn by_flow(layer: Layer, frames: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for frame in frames {
        flows.entry(flow(layer, frame)).or_default().push(meaning(layer, frame));
    }
    flows
}

/// IP offset, protocol, addresses and ports; empty if there are none.
fn flow(layer: Layer, frame: &[u8]) -> Vec<u8> {
    let Some(at) = layer.network(frame) else { return Vec::new() };
    let (protocol, addresses) = if frame[at] >> 4 == 4 { (9, 12..24) } else { (6, 8..44) };
    let mut name = vec![at as u8, frame[at] >> 4, frame.get(at + protocol).copied().unwrap_or(0)];
    name.extend(frame.get(at + addresses.start..at + addresses.end).unwrap_or_default());
    name
}

/// Removes what need not survive: padding of short Ethernet frames, and the identification of a packet that may not be
/// fragmented (RFC 6864).
fn meaning(layer: Layer, frame: &[u8]) -> Vec<u8> {
    let Some(at) = layer.network(frame) else { return frame.to_vec() };
    let number = |at: usize| Some(usize::from(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?])));
    let v4 = frame[at] >> 4 == 4;
    let length = if v4 { number(at + 2) } else { number(at + 4).map(|length| length + 40) };
    let padded = layer == Layer::Ethernet && frame.len() <= 64;
    let end = length.filter(|_| padded).map_or(frame.len(), |length| frame.len().min(at + length));
    let mut frame = frame[..end].to_vec();
    if v4 && frame.len() >= at + 20 && frame[at + 6] & 0x40 != 0 {
        frame[at + 4..at + 6].fill(0);
        frame[at + 10..at + 12].fill(0);
    }
    frame
}
