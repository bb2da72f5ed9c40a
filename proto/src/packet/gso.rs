//! Segments super-frames from the device (segmentation offload) and completes the checksums that the kernel left
//! partial, as net/ipv4/tcp_offload.c and udp_offload.c do.

use super::checksum::{fold, sum};
use super::ip::{
    IPV4_HEADER, IPV6_HEADER, TCP, TCP_CHECKSUM, TCP_HEADER, UDP, UDP_CHECKSUM, UDP_HEADER, write_length,
};
use super::layer::Layer;
use super::virtio::{Kind, Virtio};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The virtio header does not fit what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the virtio header does not fit the frame")]
pub struct Unfit;

/// Emits each frame that was read from the device, with its checksums, in two consecutive parts:
/// `emit(headers, payload)`, or `emit(frame, nothing)` for a single frame. `packet` is what follows the virtio header;
/// its contents are clobbered.
///
/// # Errors
/// [`Unfit`]; nothing has been emitted then.
pub fn split(
    virtio: Virtio,
    packet: &mut [u8],
    layer: Layer,
    mut emit: impl FnMut(&[u8], &[u8]),
) -> Result<(), Unfit> {
    match virtio.kind {
        Kind::Single => {
            if let Some((start, offset)) = virtio.checksum {
                complete(packet, start.into(), offset.into())?;
            }
            emit(packet, &[]);
            Ok(())
        }
        Kind::TcpV4 | Kind::TcpV6 | Kind::Udp => {
            let plan = Plan::new(virtio, packet, layer)?;
            plan.run(packet, virtio.segment.into(), &mut emit);
            Ok(())
        }
    }
}

/// Completes a checksum whose field holds the pseudo-header sum, not inverted.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Unfit> {
    let covered = packet.get_mut(start..).ok_or(Unfit)?;
    if covered.len() < offset + 2 {
        return Err(Unfit);
    }
    let mut value = !fold(sum(covered));
    // A UDP checksum of zero means none (RFC 768).
    if offset == UDP_CHECKSUM && value == 0 {
        value = 0xffff;
    }
    covered[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    Ok(())
}

/// The headers of a super-frame.
struct Plan {
    network: usize,
    transport: usize,
    headers: usize,
    v4: bool,
    tcp: bool,
}

impl Plan {
    fn new(virtio: Virtio, packet: &[u8], layer: Layer) -> Result<Self, Unfit> {
        let network = layer.network(packet).ok_or(Unfit)?;
        let v4 = packet[network] >> 4 == 4;
        let tcp = match (virtio.kind, v4) {
            (Kind::TcpV4, true) | (Kind::TcpV6, false) => true,
            (Kind::Udp, _) => false,
            (Kind::TcpV4 | Kind::TcpV6 | Kind::Single, _) => return Err(Unfit),
        };
        let (start, offset) = virtio.checksum.ok_or(Unfit)?;
        let transport = usize::from(start);
        let fits = if v4 {
            transport == network + usize::from(packet[network] & 15) * 4
                && transport >= network + IPV4_HEADER
                && packet.get(network + 9) == Some(if tcp { &TCP } else { &UDP })
        } else {
            transport >= network + IPV6_HEADER
        };
        let headers = match tcp {
            true => transport + usize::from(packet.get(transport + 12).ok_or(Unfit)? >> 4) * 4,
            false => transport + UDP_HEADER,
        };
        let least = transport + if tcp { TCP_HEADER } else { UDP_HEADER };
        let whole = headers >= least && packet.len() > headers && virtio.segment > 0;
        // The length fields of a segment have 16 bits.
        let expressible = headers + usize::from(virtio.segment) <= 65535 + network;
        let plan = Self { network, transport, headers, v4, tcp };
        let sound = fits && usize::from(offset) == plan.place() && whole && expressible;
        sound.then_some(plan).ok_or(Unfit)
    }

    fn run(&self, packet: &mut [u8], segment: usize, emit: &mut impl FnMut(&[u8], &[u8])) {
        let (headers, payload) = packet.split_at_mut(self.headers);
        let first = Fields::of(self, headers, payload.len());
        let pieces = payload.len().div_ceil(segment);
        let mut at = 0;
        for (number, piece) in payload.chunks(segment).enumerate() {
            self.write_network(headers, &first, number, piece.len());
            let transport = &mut headers[self.transport..];
            if self.tcp {
                transport[4..8].copy_from_slice(&first.sequence.wrapping_add(at).to_be_bytes());
                let mut flags = first.flags;
                if number > 0 {
                    flags &= !CWR;
                }
                if number + 1 < pieces {
                    flags &= !(FIN | PSH);
                }
                transport[13] = flags;
            } else {
                let length = (transport.len() + piece.len()) as u16;
                transport[4..6].copy_from_slice(&length.to_be_bytes());
            }
            self.write_checksum(headers, first.pseudo, piece);
            emit(headers, piece);
            at = at.wrapping_add(piece.len() as u32);
        }
    }

    fn write_network(&self, headers: &mut [u8], first: &Fields, number: usize, payload: usize) {
        let length = headers.len() - self.network + payload;
        let network = &mut headers[self.network..self.transport];
        if self.v4 {
            network[4..6].copy_from_slice(&first.identification.wrapping_add(number as u16).to_be_bytes());
        }
        write_length(network, self.v4, length);
    }

    /// Checksum offset in the transport header.
    fn place(&self) -> usize {
        if self.tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }
    }

    fn write_checksum(&self, headers: &mut [u8], pseudo: u64, piece: &[u8]) {
        let place = self.place();
        let transport = &mut headers[self.transport..];
        transport[place..place + 2].fill(0);
        let length = transport.len() + piece.len();
        // Headers have even length, so the sums can be added.
        let total = pseudo + length as u64 + sum(transport) + sum(piece);
        let mut value = !fold(total);
        if !self.tcp && value == 0 {
            value = 0xffff;
        }
        transport[place..place + 2].copy_from_slice(&value.to_be_bytes());
    }
}

/// Fields of the first segment, from which the others count on.
struct Fields {
    identification: u16,
    sequence: u32,
    flags: u8,
    /// Pseudo-header sum without the length, as the kernel left it: the kernel knows the final destination behind a
    /// routing header.
    pseudo: u64,
}

impl Fields {
    fn of(plan: &Plan, headers: &[u8], payload: usize) -> Self {
        let network = &headers[plan.network..];
        let transport = &headers[plan.transport..];
        let number = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let length = fold((transport.len() + payload) as u64);
        let mut fields = Self {
            identification: number(network, 4),
            sequence: 0,
            flags: 0,
            pseudo: u64::from(number(transport, plan.place())) + u64::from(!length),
        };
        if plan.tcp {
            let [a, b, c, d] = [transport[4], transport[5], transport[6], transport[7]];
            (fields.sequence, fields.flags) = (u32::from_be_bytes([a, b, c, d]), transport[13]);
        }
        fields
    }
}

#[cfg(test)]
mod tests;
