//! Faults that are put into the code of a thread, to see that a simulation or a search finds them. `tests/faults/run` builds a copy
//! of the tree with this module and the lines of `faults.patch` in it; the tree itself has neither.

use std::cell::Cell;

/// Something that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The newest counter of a window is accepted once more.
    WindowOffByOne,
    /// A datagram is taken whatever its tag says.
    TagUnchecked,
    /// The tag does not cover the header.
    HeaderUncovered,
    /// Keys of a session are not wiped when it is too old.
    KeyOutlivesSession,
    /// Keys are not wiped when the link goes down.
    KeyOutlivesLink,
    /// Every session gets the same slot.
    SlotReused,
    /// A datagram from elsewhere moves the link at once.
    PathNotValidated,
    /// The same key id is drawn again, so that its counters repeat.
    SidDrawnTwice,
    /// A key id is taken for a hello that names one of this end's, whatever was sealed before that hello.
    TakenFromZero,
    /// A key id that was live is taken again (the search finds it: proto/tests/search).
    TakenAgain,
    /// Frames pass before a hello fits.
    HelloNotRequired,
    /// A frame begun before a gap is finished after it.
    GapIgnored,
    /// An initiation that was taken is taken again.
    InitiationRepeated,
    /// A session is used before the peer has shown that it has it.
    NotConfirmed,
    /// The longest datagram that the host believes in is used without a probe.
    BudgetBelieved,
    /// A process that may be a copy goes on with its keys.
    CopyIgnored,
    /// A peer that is not heard of is thought to be there.
    SilenceIgnored,
    /// The session that the peer still sends on is forgotten when there is a third.
    UsedSessionForgotten,
    /// An answer that nobody confirms keeps everybody else out.
    AnswerKept,
    /// A caller that proved nothing takes the place of one that waits (the search finds it: proto/tests/search).
    UnprovenDisplaces,
    /// A silence on a session brings no new call.
    NoCallAfterSilence,
    /// A key id is taken for a hello that names none of this end's.
    NamingNotRequired,
}

#[cfg(test)]
impl Fault {
    /// Those that the simulation finds.
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

/// Whether this is wrong now: `faulty!(TagUnchecked)`.
macro_rules! faulty {
    ($fault:ident) => {
        crate::fault::is(crate::fault::Fault::$fault)
    };
}

/// Whether this is wrong now.
pub fn is(fault: Fault) -> bool {
    INJECTED.get() == Some(fault)
}

#[cfg(test)]
/// Makes this wrong in this thread, instead of what was before; gives that.
pub fn inject(fault: Option<Fault>) -> Option<Fault> {
    INJECTED.replace(fault)
}
