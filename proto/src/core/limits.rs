//! The protocol's constants and their reasons.

use std::time::Duration;

/// Counters stay below this: the bound of RFC 9001 appendix B for AES-GCM.
pub const COUNTER_END: u32 = 1 << 29;
/// A sender changes its key at this counter, long before it must.
pub const COUNTER_ROTATE: u32 = 1 << 27;
/// Most 16-byte cipher blocks sealed under a key: [`COUNTER_END`] datagrams of 512 bytes. Longer ones get here first.
pub const BLOCKS_END: u64 = 1 << 34;
/// A sender changes its key after so many, as with [`COUNTER_ROTATE`].
pub const BLOCKS_ROTATE: u64 = 1 << 33;
/// Size of the replay window in counters: whole batches of 64 KiB may be reordered.
pub const WINDOW: u32 = 8192;

/// Interval at which a sender in static mode draws a new key id.
pub const KEY_ID_LIFE: Duration = Duration::from_secs(60);
/// Age at which a peer's key id is no longer live, as with sessions.
pub const KEY_ID_END: Duration = Duration::from_secs(180);
/// Minimum interval between retiring own key ids because a peer's former key id came again: longer than a round trip.
pub const KEY_ID_RETIRE: Duration = Duration::from_secs(5);
/// Clock difference of the ends in microseconds from which it is reported. The link works regardless.
pub const CLOCKS_APART: u64 = 120_000_000;
/// Minimum interval between answers to key ids that are not live; separate for old and newest ones.
pub const PRESENTATION: Duration = Duration::from_secs(1);
/// Burst of key derivations for key ids that are not live, separate for old and newest ones, ...
pub const DERIVATIONS: u32 = 1000;
/// ... and the interval of further ones.
pub const DERIVATION: Duration = Duration::from_millis(1);
/// Burst of old key ids' datagrams that a lane hands over, then one per [`DERIVATION`]: few enough to leave room in any
/// queue.
pub const OLD: u32 = 200;

/// Interval of hellos until the peer's comes ...
pub const HELLO_FIRST: Duration = Duration::from_secs(1);
/// ... if several addresses are called in turn: varied by a fifth, it is never less than a peer's interval of presenting
/// itself again after a hello for another address ([`PRESENTATION`]) ...
pub const HELLO_TURN: Duration = Duration::from_millis(1250);
/// ... and after [`HELLO_PATIENCE`] tries.
pub const HELLO_LATER: Duration = Duration::from_secs(5);
/// Quick tries before the slow ones.
pub const HELLO_PATIENCE: u32 = 30;
/// Tries before reporting that nobody answers.
pub const HELLO_TRIES: u32 = 3;
/// Most remote addresses that are called.
pub const ADDRESSES: usize = 16;
/// Delay before the next address not yet called (RFC 8305, section 5). Once all were called, they are called in turn, at
/// the rate of a single one.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// A round of calls takes at most so many of these delays; they are shorter for more addresses, so all are called within a second.
/// Each of [`ADDRESSES`] has 50 ms, and RFC 8305 (section 8) requires 10.
pub const ATTEMPT_DELAYS: u32 = 3;
/// Further tries at the address that answered before others are called again.
pub const REMOTE_TRIES: u32 = 2;
/// Minimum interval between answers to hellos that ask for one.
pub const HELLO_ANSWER: Duration = Duration::from_millis(200);
/// An end that goes on calling for so long although it is answered hears no answer.
pub const ANSWERS_LOST: Duration = Duration::from_secs(10);
/// Interval of name look-ups while the peer is away.
pub const RESOLVE: Duration = Duration::from_secs(15);
/// Interval of repeating waits and mismatches.
pub const REPEAT: Duration = Duration::from_secs(60);
/// How long what is reported at most once per [`REPEAT`] holds without a further report.
pub const LASTING: Duration = Duration::from_secs(70);

/// Largest divergence of wall clock and monotonic clock between two checks.
pub const CLOCKS_PART: Duration = Duration::from_secs(1);

/// A displaced process that speaks again within this time is not the same as the one that displaced it. It is longer than the
/// silence before a new call, and shorter than the life of a key id, of which a process has several.
pub const CLONES_WITHIN: Duration = Duration::from_secs(50);
/// If the speakers at two places keep changing for this long, there are two ends.
pub const CLONES_LEAST: Duration = Duration::from_secs(5);
/// Minimum interval of telling two ends with one key of each other. The link reports it for [`REPEAT`] after the last sign.
pub const CLONES_TOLD: Duration = Duration::from_secs(5);

/// Minimum interval of signs to a caller in the other key mode, which show it why there is no link.
pub const SIGN_INTERVAL: Duration = Duration::from_secs(5);

/// Minimum interval of path validations, and the time in which the old address may answer.
pub const PATH_INTERVAL: Duration = Duration::from_secs(1);
/// Lifetime of a path challenge.
pub const PATH_LIFE: Duration = Duration::from_secs(5);

/// Silence after which the peer is asked for a word, if a stream is available ...
pub const CARRIER_ASK: Duration = Duration::from_secs(3);
/// ... and after which the stream is tried: with its second and the peer's, frames are back within ten.
pub const CARRIER_SILENCE: Duration = Duration::from_secs(5);
/// Interval at which a link over a stream tries datagrams again.
pub const CARRIER_RETRY: Duration = Duration::from_secs(60);

/// Time for setting up the socket of a lane's own way before the first question.
pub const LANE_FIRST: Duration = Duration::from_millis(100);
/// Interval of questions along a lane's own way ...
pub const LANE_ASK: Duration = Duration::from_secs(1);
/// ... and the unanswered ones after which it is given up ...
pub const LANE_LOSSES: u32 = 3;
/// ... and the delay until a retry.
pub const LANE_RETRY: Duration = Duration::from_secs(60);
/// Longest interval of questions along an answering way; else it is the keepalive interval.
pub const LANE_CHECK: Duration = Duration::from_secs(5);

/// Burst of changes in the peer's lanes, then one per [`LANE_CHANGE`].
pub const LANE_CHANGES: u32 = 4;
/// See [`LANE_CHANGES`].
pub const LANE_CHANGE: Duration = Duration::from_secs(10);
/// Burst of sockets requested for lanes, then one per [`LANE_ASK`].
pub const LANE_SOCKETS: u32 = 30;

/// UDP payload that every path should carry, in bytes: an IPv4 packet of 576. Nothing longer is sent unless known to pass
/// (RFC 8899 MIN_PLPMTU).
pub const BUDGET_LEAST: usize = 576 - OUTER_V4;
/// UDP payload that nearly every path carries, in bytes: the fallback if the longest does not pass (RFC 8899
/// BASE_PLPMTU).
pub const BUDGET_BASE: usize = 1200;
/// Longest datagram probed for, in bytes: a jumbo frame's payload.
pub const BUDGET_MAX: usize = 9188;
/// Lost probes of one length that show it is too long (RFC 8899 MAX_PROBES).
pub const PROBE_LOSSES: u32 = 3;
/// A search ends when the bounds are this close, in bytes.
pub const PROBE_STEP: usize = 16;
/// Minimum interval of verifying the budget after reports of long datagrams. Reports come every second, so with three
/// waits full frames are lost for less than three seconds.
pub const PROBE_VERIFY: Duration = Duration::from_millis(500);
/// Least and most wait for a probe's answer, else following the round-trip time. Three waits for each direction are
/// less than a second; a busy processor delays the short ping as well.
pub const PROBE_WAIT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Doublings of the pause after rounds without any answer.
pub const PROBE_PATIENCE: u32 = 4;
/// First and longest interval of probing above the budget, which doubles each time (RFC 8899 PMTU_RAISE_TIMER): a path that
/// shrank briefly recovers soon, and a small one is rarely probed.
pub const PROBE_RAISE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];
/// IPv4 and UDP headers in bytes.
pub const OUTER_V4: usize = 28;
/// IPv6 and UDP headers in bytes.
pub const OUTER_V6: usize = 48;
/// Largest UDP payload over IPv4 in bytes.
pub const DATAGRAM_MAX: usize = 65_507;
/// Overhead of an Ethernet frame beyond the MTU: header and two 802.1Q tags.
pub const ETHERNET: usize = 14 + 8;

/// Length of an initiation's datagram in bytes, drawn uniformly; in static mode, of a hello that asks for one.
pub const INITIATION: std::ops::RangeInclusive<usize> = 200..=BUDGET_LEAST;
/// The same with an ML-KEM key: at most what a path of 1420 carries over IPv6.
pub const INITIATION_HYBRID: std::ops::RangeInclusive<usize> = 1312..=1372;
/// The same for each part of a split one, which every path carries.
pub const INITIATION_PART: std::ops::RangeInclusive<usize> = 488..=BUDGET_LEAST;
/// Initiations of a call to one address whose answers still count.
pub const INITIATION_STATES: usize = 3;
/// Interval of repeating an initiation ...
pub const CALL_FIRST: Duration = Duration::from_secs(5);
/// ... and after [`CALL_PATIENCE`] tries.
pub const CALL_LATER: Duration = Duration::from_secs(60);
/// Quick tries before the slow ones.
pub const CALL_PATIENCE: u32 = 60;
/// Initiations of unknown instances without a token that are answered, as a burst and per second, if the instance has
/// turns left ...
pub const CALLERS_NEW: u32 = 8;
/// ... and if it has none.
pub const CALLERS_OTHER: u32 = 2;
/// Turns of an instance: more than one, since replies may be lost.
pub const CALLERS_TURNS: u64 = 2;
/// How long an answered initiation keeps its place against others without a token: longer than any round trip. After
/// that its initiator is gone, most likely restarted.
pub const ANSWER_KEPT: Duration = Duration::from_secs(5);
/// If two answer initiations of one call within this time, the first is the peer. A session that stays silent for so
/// long, while later initiations of its call are under way, is requested again.
pub const ANSWERS_RACE: Duration = Duration::from_secs(1);
/// Minimum lifetime of a token; at most twice as long.
pub const TOKEN_EPOCH: Duration = Duration::from_secs(10);
/// Sessions and handshakes that a receiver can distinguish.
pub const SLOTS: u8 = 4;
/// Age at which the initiator replaces a session.
pub const SESSION_REKEY: Duration = Duration::from_secs(120);
/// How much later the responder does.
pub const SESSION_RESPONDER: Duration = Duration::from_secs(15);
/// Age at which a session's keys are always wiped.
pub const SESSION_END: Duration = Duration::from_secs(180);
/// Sessions this close together come from simultaneous calls.
pub const SESSION_OVERLAP: Duration = Duration::from_secs(10);
/// Silence on a session after which a call begins beside it.
pub const SILENCE: Duration = Duration::from_secs(15);
