//! Running the link's scripts, one at a time, while everything else goes on.
#![allow(clippy::disallowed_methods, reason = "scripts have a time limit")]

use std::time::Instant;

use crate::parent::Parent;
use crate::parent::environment::{Facts, Hook};
use crate::parent::script::ScriptError;
use crate::report::exit::{FAILED, Fatal};
use crate::say;
use crate::sys::clock::unix_time;

impl Parent {
    /// Starts the script of the link's next up or down, once the one before has ended.
    pub(super) fn run_next_hook(&mut self) {
        self.log_outcome();
        if self.scripts.is_running() {
            return;
        }
        if let Some(hook) = self.status.hooks.pop_front() {
            self.status.announced = hook == Hook::LinkUp;
            if let Err(error) = self.start_script(hook) {
                self.script_failed(&error);
            }
        }
    }

    pub(super) fn log_outcome(&mut self) {
        match self.outcome.take() {
            Some((_, Err(error))) => self.script_failed(&error),
            Some((_, Ok(()))) => self.control.failed_script = None,
            None => {}
        }
    }

    /// The link goes on without it, and its status says so.
    fn script_failed(&mut self, error: &ScriptError) {
        say!(1, "{error}");
        self.control.failed_script = Some((format!("{error}: the log has what it said"), unix_time()));
    }

    pub(super) fn start_script(&mut self, hook: Hook) -> Result<bool, ScriptError> {
        let Some(device) = self.changes.device() else { return Ok(false) };
        let facts = Facts {
            config: &self.link.config,
            file: &self.link.file,
            device: &device.name,
            net_gateway: self.status.net_gateway,
            endpoint: self.status.endpoint,
            trusted: self.status.trusted,
            traffic: self.status.traffic,
            signal: match (&self.ending, hook) {
                (Some(ending), _) => Some(ending.signal),
                (None, Hook::LinkDown) => Some("ping-restart"),
                (None, Hook::Up | Hook::Down | Hook::RouteUp | Hook::RouteDown | Hook::LinkUp) => None,
            },
            unix_time: unix_time(),
        };
        self.scripts.start(hook, &self.link.config.scripts, &facts, &self.link.directory, Instant::now())
    }

    /// Runs the script of `hook` to its end, after the one that runs already; everything else goes on
    /// meanwhile.
    pub(super) fn run_script(&mut self, hook: Hook) -> Result<(), Fatal> {
        let failed = |error: ScriptError| Fatal::new(FAILED, error);
        self.wait_for_script();
        self.log_outcome();
        if self.abandoned || !self.start_script(hook).map_err(failed)? {
            return Ok(());
        }
        self.wait_for_script();
        match self.outcome.take() {
            Some((_, result)) => result.map_err(failed),
            None => Ok(()),
        }
    }

    /// Waits until no script runs.
    pub(super) fn wait_for_script(&mut self) {
        while self.scripts.is_running() {
            if self.abandoned {
                return self.scripts.kill();
            }
            self.turn(None);
        }
    }

    /// Ends the script that runs.
    pub(super) fn end_script(&mut self) {
        self.scripts.terminate(Instant::now());
        self.wait_for_script();
        self.log_outcome();
    }
}
