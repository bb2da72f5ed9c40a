//! The parent's events and effects.

use crate::parent::environment::Hook;
use crate::privsep::message::End;
use crate::report::exit::Fatal;

/// Why the parent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) struct Ending {
    /// Exit code.
    pub code: u8,
    /// One line for the log; empty if already logged.
    pub reason: String,
    /// The value of `signal` for scripts.
    pub signal: &'static str,
}

/// How far the host has been prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::parent) enum Stage {
    /// There is no device.
    #[default]
    Begun,
    /// Opening the device was at least tried.
    Opened,
    /// `up` has run.
    Up,
    /// Routes are set, at least in part.
    Routed,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) enum Event {
    /// Someone asks for the end, for this reason; scripts get `signal`. The second request ends it at once.
    Terminate { reason: String, signal: &'static str },
    /// The configuration must be read again.
    Reload,
    /// The link needs another socket.
    NewSocket,
    /// The link must take its bridge's MTU.
    BridgeMtu,
    /// The new configuration needs another engine, whose keys are at hand.
    Replace,
    /// The engine asks for the device.
    OpenDevice,
    /// The peer begins to answer.
    LinkUp,
    /// The peer ceases to answer.
    LinkDown,
    /// The engine says how it ends.
    LastWords(End, String),
    /// The engine's process has ended, with this status.
    EngineGone(String),
    /// The last script started has ended, or could not be started.
    ScriptEnded(Result<(), String>),
    /// Name resolution is over, complete or not.
    LookedUp,
    /// Something failed that the link cannot do without.
    Failed(Fatal),
}

/// An effect, in the order in which [`Machine::poll`](super::Machine::poll) yields them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) enum Effect {
    /// Open and configure the device.
    OpenDevice,
    /// Resolve the remotes' names while that is possible; [`Event::LookedUp`] follows.
    LookUp,
    /// Set the routes.
    SetRoutes,
    /// Start an engine with the keys at hand.
    StartEngine,
    /// Give the running engine the device.
    HandDeviceOver,
    /// Announce this host's addresses to the far side.
    AnnounceAddresses,
    /// Run a script; [`Event::ScriptEnded`] follows.
    RunScript { hook: Hook, signal: Option<&'static str> },
    /// Terminate the running script.
    TerminateScript,
    /// Kill the running script, without waiting for it.
    KillScript,
    /// The peer begins or ceases to answer.
    LinkChanged { up: bool },
    /// Read the configuration again and change the host; [`Event::Replace`] may follow.
    Reload,
    /// Report the outcome to those who asked.
    FinishReload,
    /// Read the keys again; [`Event::Replace`] follows unless they have changed.
    TakeNewSocket,
    /// Set the device's MTU to that of its bridge; [`Event::Replace`] follows unless it fails.
    TakeBridgeMtu,
    /// Ask the engine to end; [`Event::EngineGone`] follows.
    StopEngine,
    /// Kill the engine.
    KillEngine,
    /// Log why the parent ends.
    End(Ending),
    /// Undo the routes.
    UndoRoutes,
    /// Undo the device and its settings.
    UndoDevice,
    /// Log that the device is gone, and why.
    DeviceLost(String),
    /// Forget the lost device, and read the keys for another engine.
    Renew,
    /// Unblock what a closed full tunnel blocks.
    OpenTunnel,
}
