//! Every number of the protocol, each with its reason.

use std::time::Duration;

/// A counter is never this high: the bound of RFC 9001 appendix B for AES-GCM.
pub const COUNTER_END: u32 = 1 << 29;
/// A sender changes its key when a counter gets here, far before it has to.
pub const COUNTER_ROTATE: u32 = 1 << 27;
/// Nothing is sealed under a key that sealed so many cipher blocks of 16 bytes: [`COUNTER_END`] datagrams of 512 bytes.
/// Longer ones get here first.
pub const BLOCKS_END: u64 = 1 << 34;
/// A sender changes its key when it sealed so many, as with [`COUNTER_ROTATE`].
pub const BLOCKS_ROTATE: u64 = 1 << 33;
/// Counters a replay window remembers: batches of 64 KiB may be overtaken as a whole.
pub const WINDOW: u32 = 8192;

/// A sender of static mode draws a new key id this often.
pub const KEY_ID_LIFE: Duration = Duration::from_secs(60);
/// Age at which a key id of the peer's is no longer live: as with sessions.
pub const KEY_ID_END: Duration = Duration::from_secs(180);
/// An own key id is retired at most this often for a key id of the peer's that was live before: longer than a round trip.
pub const KEY_ID_RETIRE: Duration = Duration::from_secs(5);
/// How far the clocks of the ends may be apart, in microseconds, before that is said. The link does not care.
pub const CLOCKS_APART: u64 = 120_000_000;
/// What comes under a key id that is not live is answered at most once in this time, for old and for newest key ids.
pub const PRESENTATION: Duration = Duration::from_secs(1);
/// Keys of key ids that are not live are derived at most this often at once, for old and for newest ones, ...
pub const DERIVATIONS: u32 = 1000;
/// ... and then once in each of these.
pub const DERIVATION: Duration = Duration::from_millis(1);
/// Datagrams of old key ids that a lane hands over at once, and then one in each [`DERIVATION`]: few enough to leave room
/// for others in any queue.
pub const OLD: u32 = 200;

/// Until the peer's hello is there, ours is repeated this often ...
pub const HELLO_FIRST: Duration = Duration::from_secs(1);
/// ... where several addresses are called in turn, this often: varied by a fifth, that is never sooner than a peer that got
/// one of another address presents itself again ([`PRESENTATION`]) ...
pub const HELLO_TURN: Duration = Duration::from_millis(1250);
/// ... and after [`HELLO_PATIENCE`] tries this often.
pub const HELLO_LATER: Duration = Duration::from_secs(5);
/// Quick tries before the slow ones.
pub const HELLO_PATIENCE: u32 = 30;
/// Tries before it is said that nobody answers.
pub const HELLO_TRIES: u32 = 3;
/// Most addresses of the remotes that are called.
pub const ADDRESSES: usize = 16;
/// The pause before the next address that was not called yet (RFC 8305, section 5). Once each was called, they are called
/// in turn, as seldom as a single one would be.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// No round of calls takes longer than so many of these pauses, which are shorter where there are more addresses: whoever answers is
/// called less than a second after the first. Of [`ADDRESSES`] each has 50 ms, and RFC 8305 (section 8) wants 10 at least.
pub const ATTEMPT_DELAYS: u32 = 3;
/// Further tries at the address that answered before others are called again.
pub const REMOTE_TRIES: u32 = 2;
/// An answer to a hello that asks for one is sent at most this often.
pub const HELLO_ANSWER: Duration = Duration::from_millis(200);
/// Names are looked up again this often while the peer is away.
pub const RESOLVE: Duration = Duration::from_secs(15);
/// Waiting and mismatches are said again this often.
pub const REPEAT: Duration = Duration::from_secs(60);

/// Wall clock and monotonic clock may part by this much between two looks at them.
pub const CLOCKS_PART: Duration = Duration::from_secs(1);

/// Who was displaced and speaks again within this time is another process than who displaced it: longer than the silence after
/// which an end calls anew, and shorter than a key id lives, of which one process has several.
pub const CLONES_WITHIN: Duration = Duration::from_secs(50);
/// Two places in which others speak each time are two ends if that goes on for so long.
pub const CLONES_LEAST: Duration = Duration::from_secs(5);
/// Two ends of one key are told of each other at most this often, and it is said of the link for [`REPEAT`] after the last sign.
pub const CLONES_TOLD: Duration = Duration::from_secs(5);

/// An end that is called in the other key mode gives a sign at most this often, so that the caller can see
/// why there is no link.
pub const SIGN_INTERVAL: Duration = Duration::from_secs(5);

/// At most one path validation in this time; it is also how long the old address may answer.
pub const PATH_INTERVAL: Duration = Duration::from_secs(1);
/// A path challenge is valid this long.
pub const PATH_LIFE: Duration = Duration::from_secs(5);

/// After so long without a word from the peer it is asked for one, where the link could go on over a stream ...
pub const CARRIER_ASK: Duration = Duration::from_secs(3);
/// ... and after so long that way is tried: with its own second and the peer's, frames are back within ten.
pub const CARRIER_SILENCE: Duration = Duration::from_secs(5);
/// A link that runs over a stream tries datagrams again this often.
pub const CARRIER_RETRY: Duration = Duration::from_secs(60);

/// How long the socket of a lane's own way has before the first question goes out of it.
pub const LANE_FIRST: Duration = Duration::from_millis(100);
/// A question along a lane's own way is repeated so long after ...
pub const LANE_ASK: Duration = Duration::from_secs(1);
/// ... and when so many had no answer the way is given up ...
pub const LANE_LOSSES: u32 = 3;
/// ... and tried again after this.
pub const LANE_RETRY: Duration = Duration::from_secs(60);
/// A way that answers is asked again after the keepalive interval, and after no longer than this.
pub const LANE_CHECK: Duration = Duration::from_secs(5);

/// The peer may say so many times at once that it has other lanes, and once more each [`LANE_CHANGE`].
pub const LANE_CHANGES: u32 = 4;
/// See [`LANE_CHANGES`].
pub const LANE_CHANGE: Duration = Duration::from_secs(10);
/// So many sockets for lanes are asked for at once, and one more each [`LANE_ASK`].
pub const LANE_SOCKETS: u32 = 30;

/// The UDP payload that every path is expected to take, in bytes: an IPv4 packet of 576. Nothing longer is sent unless it
/// is known to pass (RFC 8899 MIN_PLPMTU).
pub const BUDGET_LEAST: usize = 576 - OUTER_V4;
/// The UDP payload that nearly every path takes, in bytes, hence what is tried where the longest does not pass (RFC 8899
/// BASE_PLPMTU).
pub const BUDGET_BASE: usize = 1200;
/// The longest datagram that is probed for, in bytes: what a jumbo frame carries.
pub const BUDGET_MAX: usize = 9188;
/// So many probes of one length are lost before it counts as too long (RFC 8899 MAX_PROBES).
pub const PROBE_LOSSES: u32 = 3;
/// A search ends when what passes and what fails are this close, in bytes.
pub const PROBE_STEP: usize = 16;
/// The budget is verified when a report tells of long datagrams, unless it was within this time. Reports
/// come every second, so with three waits full frames are lost for less than three seconds.
pub const PROBE_VERIFY: Duration = Duration::from_millis(500);
/// Least and most time a probe waits for its answer; between them it follows the round-trip time. Three waits for
/// each direction are less than a second; what is late for want of a processor makes the short ping late as well.
pub const PROBE_WAIT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// The pause after a round of which nothing came back doubles this often.
pub const PROBE_PATIENCE: u32 = 4;
/// A budget below the ceiling is questioned after the first of these, and then each time after twice as long, up to the second
/// (RFC 8899 PMTU_RAISE_TIMER): a path that shrank for a moment is used again soon, and one that stays small is rarely asked.
pub const PROBE_RAISE: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(600)];
/// IPv4 and UDP headers in bytes.
pub const OUTER_V4: usize = 28;
/// IPv6 and UDP headers in bytes.
pub const OUTER_V6: usize = 48;
/// Largest UDP payload over IPv4 in bytes.
pub const DATAGRAM_MAX: usize = 65_507;
/// What an Ethernet frame has beyond the MTU: its header and two 802.1Q tags.
pub const ETHERNET: usize = 14 + 8;

/// Length of an initiation's datagram, drawn uniformly, in bytes; in static mode of a hello that asks for one.
pub const INITIATION: std::ops::RangeInclusive<usize> = 200..=BUDGET_LEAST;
/// The same of one that carries a key of ML-KEM: what a path of 1420 carries over IPv6 is the most.
pub const INITIATION_HYBRID: std::ops::RangeInclusive<usize> = 1312..=1372;
/// The same of each part of one that goes in parts, which every path carries.
pub const INITIATION_PART: std::ops::RangeInclusive<usize> = 488..=BUDGET_LEAST;
/// Initiations of one call to one address whose answers still count.
pub const INITIATION_STATES: usize = 3;
/// An initiation is repeated this often ...
pub const CALL_FIRST: Duration = Duration::from_secs(5);
/// ... and after [`CALL_PATIENCE`] tries this often.
pub const CALL_LATER: Duration = Duration::from_secs(60);
/// Quick tries before the slow ones.
pub const CALL_PATIENCE: u32 = 60;
/// Initiations of unknown instances without a token that get something back at once, and then each second, where the
/// instance has turns left ...
pub const CALLERS_NEW: u32 = 8;
/// ... and where it has none.
pub const CALLERS_OTHER: u32 = 2;
/// Turns of an instance: more than one, since what it gets back may be lost.
pub const CALLERS_TURNS: u64 = 2;
/// An answered initiation keeps its place against those without a token for so long: more than any round trip. After
/// that its initiator is gone, most likely because it was restarted.
pub const ANSWER_KEPT: Duration = Duration::from_secs(5);
/// Of two that answer initiations of one call within this time, the first is the peer; and a session of a call with later
/// initiations under way, of which nothing is heard for so long, is asked for again.
pub const ANSWERS_RACE: Duration = Duration::from_secs(1);
/// How long a token is good for, at least; twice as long at most.
pub const TOKEN_EPOCH: Duration = Duration::from_secs(10);
/// Sessions and handshakes that a receiver can tell apart.
pub const SLOTS: u8 = 4;
/// Age at which the end that began a session replaces it.
pub const SESSION_REKEY: Duration = Duration::from_secs(120);
/// How much later the other end does.
pub const SESSION_RESPONDER: Duration = Duration::from_secs(15);
/// Age at which a session's keys are wiped without exception.
pub const SESSION_END: Duration = Duration::from_secs(180);
/// Sessions this close together come from two calls at once.
pub const SESSION_OVERLAP: Duration = Duration::from_secs(10);
/// With a session, nothing heard for this long begins a call beside it.
pub const SILENCE: Duration = Duration::from_secs(15);
