//! Receiving from streams: the peer's and strangers'.

use std::io;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Source, TURN, Worker};
use crate::core::lane::Arrived;
use crate::engine::streams::{LOOKED_AT, Slot};
use crate::sys::clock;
use crate::transport::Datagrams;

use super::receive::FRONT_TURN;

impl<D: Datagrams> Worker<D> {
    /// Takes a turn's worth from each of the peer's streams.
    pub(super) fn take_records(&mut self, now: Instant) {
        let (ready, _) = self.port.streams.ready(true);
        for index in ready {
            self.serve_stream(now, index, TURN);
        }
        self.port.flush_frames();
    }

    /// Serves strangers for a turn; afterwards they rest.
    pub(super) fn serve_strangers(&mut self) {
        let turn = self.begin_turn();
        let (began, mut now) = (turn.began, turn.began);
        let (ready, accepts) = self.port.streams.ready(false);
        for index in ready {
            self.serve_stream(now, index, 1);
            now = clock::now().instant;
            if now >= began + FRONT_TURN {
                break;
            }
        }
        while accepts && now < began + FRONT_TURN && self.port.streams.accept(now) {
            now = clock::now().instant;
        }
        self.port.flush_frames();
        let took = clock::spent().saturating_sub(turn.spent);
        self.strangers_rest.handle_turn(turn, now, took, self.opened());
    }

    /// Polls strangers again, if they have rested.
    pub(super) fn end_strangers_rest(&mut self, now: Instant) -> io::Result<()> {
        if !self.strangers_rest.take_end(now) {
            return Ok(());
        }
        let data = EventData::new_u64(Source::Strangers as u64);
        let flags = EventFlags::IN | EventFlags::ONESHOT;
        Ok(epoll::modify(&self.epoll, &self.port.streams.epolls[1], data, flags)?)
    }

    /// Reads from a connection until `turn` bytes are read or it is empty. Closes one that ended.
    fn serve_stream(&mut self, now: Instant, index: usize, turn: usize) {
        let Some(mut slot) = self.port.streams.take(index) else { return };
        let opened = self.opened();
        let mut read = 0;
        let ended = loop {
            match slot.stream.receive() {
                Ok(length) => {
                    read += length;
                    slot.taken = slot.taken.saturating_add(length);
                    if !self.open_records(now, &mut slot) && slot.known {
                        break true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
            if read >= turn {
                break false;
            }
        };
        let proven = self.opened() != opened;
        if !ended && self.port.streams.flush(index, &mut slot).is_ok() {
            self.port.streams.put_back(now, index, slot, proven);
        }
    }

    /// Opens the datagrams that were read. Returns false if this is not a stream of the peer.
    fn open_records(&mut self, now: Instant, slot: &mut Slot) -> bool {
        let from = slot.stream.path();
        loop {
            match slot.stream.next_datagram() {
                Ok(None) => break,
                Ok(Some(_)) if slot.deaf => {}
                Ok(Some(bytes)) => {
                    let stride = bytes.len();
                    self.lane.handle_datagrams(now, Arrived { bytes, stride, ecn: 0, from }, &mut self.port);
                }
                Err(_) => return false,
            }
        }
        slot.deaf |= !slot.known && slot.taken > LOOKED_AT;
        true
    }
}
