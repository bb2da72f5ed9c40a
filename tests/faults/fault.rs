//! Faults injected into a thread's code, to show that a simulation or search finds them. `tests/faults/run` builds a copy of the
//! tree with this module and the lines of `faults.patch`; the tree itself has neither.

use std::cell::Cell;

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The newest counter of a window is accepted again.
    WindowOffByOne,
    /// A datagram is accepted whatever its tag.
    TagUnchecked,
    /// The tag does not cover the header.
    HeaderUncovered,
    /// An expired session's keys are not wiped.
    KeyOutlivesSession,
    /// Keys are not wiped when the link goes down.
    KeyOutlivesLink,
    /// Every session gets the same slot.
    SlotReused,
    /// A datagram from elsewhere moves the link at once.
    PathNotValidated,
    /// The same key id is drawn again, so that its counters repeat.
    SidDrawnTwice,
    /// A key id is accepted for a hello that names one of this end's, including what was sealed before that hello.
    TakenFromZero,
    /// A former key id is accepted again (found by the search: proto/tests/search).
    TakenAgain,
    /// Frames pass before a hello matches.
    HelloNotRequired,
    /// A frame begun before a gap is completed after it.
    GapIgnored,
    /// An initiation is accepted twice.
    InitiationRepeated,
    /// A session is used before the peer has shown that it has it.
    NotConfirmed,
    /// The host's longest datagram is used without a probe.
    BudgetBelieved,
    /// A process that may be a copy continues with its keys.
    CopyIgnored,
    /// A silent peer is thought to be there.
    SilenceIgnored,
    /// The session that the peer still sends on is dropped when there is another.
    UsedSessionForgotten,
    /// An unconfirmed answer keeps everybody else out.
    AnswerKept,
    /// A caller without proof displaces one that waits (found by the search: proto/tests/search).
    UnprovenDisplaces,
    /// Silence on a session causes no new call.
    NoCallAfterSilence,
    /// A key id is accepted for a hello that names none of this end's.
    NamingNotRequired,
}

#[cfg(test)]
impl Fault {
    /// The faults that the simulation finds.
    pub const ALL: [Fault; 20] = [
        Fault::WindowOffByOne,
        Fault::TagUnchecked,
        Fault::HeaderUncovered,
        Fault::KeyOutlivesSession,
        Fault::KeyOutlivesLink,
        Fault::SlotReused,
        Fault::PathNotValidated,
        Fault::SidDrawnTwice,
        Fault::TakenFromZero,
        Fault::HelloNotRequired,
        Fault::GapIgnored,
        Fault::InitiationRepeated,
        Fault::NotConfirmed,
        Fault::BudgetBelieved,
        Fault::CopyIgnored,
        Fault::SilenceIgnored,
        Fault::UsedSessionForgotten,
        Fault::AnswerKept,
        Fault::NoCallAfterSilence,
        Fault::NamingNotRequired,
    ];
}

thread_local! {
    static INJECTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Whether this fault is active: `faulty!(TagUnchecked)`.
macro_rules! faulty {
    ($fault:ident) => {
        crate::fault::is(crate::fault::Fault::$fault)
    };
}

/// Whether this fault is active.
pub fn is(fault: Fault) -> bool {
    INJECTED.get() == Some(fault)
}

#[cfg(test)]
/// Activates this fault in this thread; returns the previous one.
pub fn inject(fault: Option<Fault>) -> Option<Fault> {
    INJECTED.replace(fault)
}
