//! Runs the link's scripts, one at a time, without blocking anything else.
#![allow(clippy::disallowed_methods, reason = "scripts have a time limit")]

use std::time::Instant;

use crate::parent::Parent;
use crate::parent::environment::{Facts, Hook};
use crate::parent::machine::Event;
use crate::parent::script::ScriptError;
use crate::sys::clock::unix_time;

impl Parent {
    /// Starts the script of `hook`, if one is configured and there is a device; otherwise it counts as ended.
    pub(super) fn run_script(&mut self, hook: Hook, signal: Option<&'static str>) -> Option<Event> {
        let Some(device) = self.changes.device() else { return Some(Event::ScriptEnded(Ok(()))) };
        let facts = Facts {
            config: &self.link.config,
            file: &self.link.file,
            device: &device.name,
            net_gateway: self.status.net_gateway,
            endpoint: self.status.endpoint,
            trusted: self.status.trusted,
            traffic: self.status.traffic,
            signal,
            unix_time: unix_time(),
        };
        let (scripts, directory) = (&self.link.config.scripts, &self.link.directory);
        match self.scripts.start(hook, scripts, &facts, directory, Instant::now()) {
            Ok(true) => None,
            Ok(false) => Some(Event::ScriptEnded(Ok(()))),
            Err(error) => Some(self.script_ended(hook, Err(error))),
        }
    }

    /// The link survives a failed link-up or link-down script; its status reports it.
    pub(super) fn script_ended(&mut self, hook: Hook, result: Result<(), ScriptError>) -> Event {
        let result = result.map_err(|error| error.to_string());
        if let (Err(error), false) = (&result, hook == Hook::Up) {
            log::warn!("{error}");
        }
        if matches!(hook, Hook::LinkUp | Hook::LinkDown) {
            let failure = result.as_ref().err();
            self.control.failed_script =
                failure.map(|error| (format!("{error}: the log has what it said"), unix_time()));
        }
        Event::ScriptEnded(result)
    }
}
