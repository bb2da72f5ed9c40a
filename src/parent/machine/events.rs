//! What happens to the parent, and what is to be done about it.

use crate::parent::environment::Hook;
use crate::privsep::message::End;
use crate::report::exit::Fatal;

/// Why the parent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) struct Ending {
    /// Exit code.
    pub code: u8,
    /// One line for the log; empty when it has been said.
    pub reason: String,
    /// What scripts find in `signal`.
    pub signal: &'static str,
}

/// How far the host has been prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::parent) enum Stage {
    /// There is no device.
    Begun,
    /// There is a device, or it was tried to open one.
    Opened,
    /// `up` has run.
    Up,
    /// Routes are set, in part at least.
    Routed,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) enum Event {
    /// Somebody asks for the end, for this reason; scripts find `signal`. The second time it ends at once.
    Terminate { reason: String, signal: &'static str },
    /// The configuration is to be read again.
    Reload,
    /// The link is to have another socket.
    NewSocket,
    /// The link is to have the MTU of its bridge.
    BridgeMtu,
    /// What was read needs another engine, whose keys are at hand.
    Replace,
    /// The engine asks for the device.
    OpenDevice,
    /// The peer begins to answer.
    LinkUp,
    /// The peer ceases to answer.
    LinkDown,
    /// What the engine says of its end.
    LastWords(End, String),
    /// The engine's process has ended; its status in words.
    EngineGone(String),
    /// The script that was started last has ended, or could not be started.
    ScriptEnded(Result<(), String>),
    /// As many names are resolved as will be.
    LookedUp,
    /// Something cannot be done, and the link cannot do without.
    Failed(Fatal),
}

/// What is to be done, in the order in which [`Machine::poll`](super::Machine::poll) yields it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::parent) enum Effect {
    /// Open the device and set addresses and the like.
    OpenDevice,
    /// Resolve the remotes' names while that is possible; [`Event::LookedUp`] follows.
    LookUp,
    /// Set the routes.
    SetRoutes,
    /// Start an engine with the keys at hand.
    StartEngine,
    /// Give the running engine the device.
    HandDeviceOver,
    /// Tell the far side where the addresses of this host are.
    AnnounceAddresses,
    /// Run a script; [`Event::ScriptEnded`] follows.
    RunScript { hook: Hook, signal: Option<&'static str> },
    /// Have the running script end.
    TerminateScript,
    /// End the running script without waiting for it.
    KillScript,
    /// The peer answers, or does so no more.
    LinkChanged { up: bool },
    /// Read the configuration again and change the host; [`Event::Replace`] may follow.
    Reload,
    /// Tell who asked for it how that went.
    FinishReload,
    /// Read the keys again; [`Event::Replace`] follows unless they are others.
    TakeNewSocket,
    /// Set the device's MTU to that of its bridge; [`Event::Replace`] follows unless it cannot be.
    TakeBridgeMtu,
    /// Ask the engine to end; [`Event::EngineGone`] follows.
    StopEngine,
    /// End the engine without asking.
    KillEngine,
    /// Say why the parent ends.
    End(Ending),
    /// Take routes back.
    UndoRoutes,
    /// Take the device and what is set on it back.
    UndoDevice,
    /// Say that the device is gone, and why.
    DeviceLost(String),
    /// Give the lost device up, and have keys at hand for another engine.
    Renew,
    /// Open what a full tunnel keeps closed.
    OpenTunnel,
}
