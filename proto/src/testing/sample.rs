//! Test frames, built field by field and summed word by word: a reference that shares no code with what it checks.

use crate::packet::layer::Layer;

/// A TCP or UDP frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub ethernet: Option<Option<u16>>,
    pub v6: bool,
    pub tcp: bool,
    pub class: u8,
    pub ttl: u8,
    pub dont_fragment: bool,
    pub identification: u16,
    pub ports: [u16; 2],
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Sample {
    pub fn new(v6: bool, tcp: bool) -> Self {
        Self {
            ethernet: None,
            v6,
            tcp,
            class: 0,
            ttl: 64,
            dont_fragment: true,
            identification: 77,
            ports: [40000, 5201],
            sequence: 1000,
            acknowledged: 5,
            flags: 0x10,
            window: 501,
            options: if tcp { vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] } else { Vec::new() },
            payload: Vec::new(),
        }
    }

    pub fn layer(&self) -> Layer {
        if self.ethernet.is_some() { Layer::Ethernet } else { Layer::Ip }
    }

    pub fn with_payload(&self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self.clone() }
    }

    /// Offsets of IP header, transport header and payload.
    pub fn places(&self) -> [usize; 3] {
        let network = match self.ethernet {
            None => 0,
            Some(None) => 14,
            Some(Some(_)) => 18,
        };
        let transport = network + if self.v6 { 40 } else { 20 };
        [network, transport, transport + if self.tcp { 20 + self.options.len() } else { 8 }]
    }

    /// Builds the whole frame with valid checksums.
    pub fn build(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let place = if self.tcp { 16 } else { 6 };
        let mut value = !self.slow_sum(&transport, true);
        if !self.tcp && value == 0 {
            value = 0xffff;
        }
        transport[place..place + 2].copy_from_slice(&value.to_be_bytes());
        [self.outside(transport.len()), transport].concat()
    }

    /// Builds the frame as the kernel hands it over, with only the pseudo-header sum as checksum.
    pub fn build_partial(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let place = if self.tcp { 16 } else { 6 };
        let value = self.slow_sum(&transport, false);
        transport[place..place + 2].copy_from_slice(&value.to_be_bytes());
        [self.outside(transport.len()), transport].concat()
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 { (0..32).map(|n| n * 3).collect() } else { vec![10, 0, 0, 1, 10, 200, 0, 2] }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        if self.tcp {
            bytes.extend(self.sequence.to_be_bytes());
            bytes.extend(self.acknowledged.to_be_bytes());
            bytes.extend([((20 + self.options.len()) / 4 * 16) as u8, self.flags]);
            bytes.extend(self.window.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(&self.options);
        } else {
            bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn slow_sum(&self, transport: &[u8], whole: bool) -> u16 {
        let length = transport.len() as u32;
        let mut covered = self.addresses();
        covered.extend([0, if self.tcp { 6 } else { 17 }]);
        covered.extend(length.to_be_bytes());
        if whole {
            covered.extend(transport);
        }
        let mut total = 0u32;
        for pair in covered.chunks(2) {
            total += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
            if total > 0xffff {
                total -= 0xffff;
            }
        }
        total as u16
    }

    fn outside(&self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(tag) = self.ethernet {
            bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            if let Some(tag) = tag {
                bytes.extend([0x81, 0]);
                bytes.extend(tag.to_be_bytes());
            }
            bytes.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        }
        let protocol = if self.tcp { 6 } else { 17 };
        if self.v6 {
            bytes.extend([0x60 | self.class >> 4, self.class << 4, 0xab, 0xcd]);
            bytes.extend((length as u16).to_be_bytes());
            bytes.extend([protocol, self.ttl]);
            bytes.extend(self.addresses());
        } else {
            let mut header = vec![0x45, self.class];
            header.extend(((20 + length) as u16).to_be_bytes());
            header.extend(self.identification.to_be_bytes());
            header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, protocol, 0, 0]);
            header.extend(self.addresses());
            let words = header.chunks(2).map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1]));
            let total: u32 = words.sum();
            let value = !((total & 0xffff) + (total >> 16)) as u16;
            header[10..12].copy_from_slice(&value.to_be_bytes());
            bytes.extend(header);
        }
        bytes
    }
}
