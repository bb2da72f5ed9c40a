//! Reading the configuration again while the link runs.

use serde_json::json;

use crate::config::reload::{self, Change, Plan, Takes};
use crate::control::api;
use crate::core::settings::LinkSettings;
use crate::crypto::keys::fingerprint;
use crate::crypto::stack::cleanly;
use crate::helper::resolve::Resolver;
use crate::parent::host::FAREWELL;
use crate::parent::notify;
use crate::parent::start;
use crate::parent::{Engine, Launch, Parent};
use crate::privsep::message::{Keys, ToEngine};
use crate::privsep::spawn::{Role, spawn};
use crate::report::exit::FAILED;
use crate::report::log;
use crate::route::full;
use crate::route::plan;
use crate::say;
use crate::sys::clock::unix_time;

impl Parent {
    /// Takes over what the file says now. What is wrong with it is said, and then everything stays as it is.
    pub(super) fn reload(&mut self) {
        say!(1, "reading {} again", self.link.options.config.display());
        notify::reloading();
        let result = self.try_reload();
        self.control.reload_ok = result.is_ok();
        let answer = match result {
            Ok(lines) => {
                self.control.loaded = unix_time();
                lines.iter().for_each(|line| say!(1, "reload: {line}"));
                api::reply(&json!({ "changes": lines }))
            }
            Err(reasons) => {
                reasons.iter().for_each(|reason| say!(1, "reload: {reason}"));
                say!(1, "reload: the old configuration stays");
                api::refusal(&format!("the old configuration stays: {}", reasons.join("; ")))
            }
        };
        for client in std::mem::take(&mut self.control.reload_asked) {
            self.reply(client, &answer);
        }
        notify::ready();
    }

    fn try_reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        if self.engine.is_none() {
            return Err(vec!["the link is still starting; try again".to_owned()]);
        }
        let (_, mut config) = start::read_again(&self.link.options)?;
        start::take_bridge_mtu(&mut config, &mut self.changes.netlink);
        let keys = start::secrets(&config, self.link.options.allow_open_keys).map_err(|e| vec![e.message])?;
        let fingerprint = cleanly(|| fingerprint(&keys.secret));
        let plan = reload::plan(&self.link.config, &config, fingerprint != self.link.fingerprint);
        if self.link.activated && plan.takes() == Takes::Connect {
            let connect = plan.changes.iter().filter(|change| change.takes == Takes::Connect);
            let what: Vec<_> = connect.map(|change| change.what.as_str()).collect();
            return Err(vec![format!(
                "{}: a link with a socket from inetd or systemd has to be restarted",
                what.join(", ")
            )]);
        }
        let mut lines: Vec<_> = plan.changes.iter().map(Change::to_string).collect();
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        lines.extend(self.change_host(&plan).map_err(|error| vec![error])?);
        let takes = plan.takes();
        self.link.config = plan.config;
        log::set_level(self.link.config.run.verb);
        if takes >= Takes::Call {
            self.resolver = Resolver::new(self.link.config.remotes.clone(), self.link.confinement.clone());
        }
        self.link.fingerprint = fingerprint;
        match takes {
            Takes::Connect => self.replace_engine(keys),
            Takes::Nothing | Takes::Call | Takes::Restart => {
                let settings =
                    LinkSettings { activated: self.link.activated, ..LinkSettings::from(&self.link.config) };
                self.tell_sources();
                self.answer(&ToEngine::Settings(Box::new(settings)));
                if takes == Takes::Call {
                    self.answer(&ToEngine::Reconnect);
                }
            }
        }
        Ok(lines)
    }

    /// Brings addresses and routes to what the plan says; before the device is there they wait for it. The error is
    /// found before anything is changed; what fails later is a line of the result.
    fn change_host(&mut self, plan: &Plan) -> Result<Vec<String>, String> {
        let Some(device) = self.changes.interface() else { return Ok(Vec::new()) };
        let host = self.survey_for(&plan.config).map_err(|fatal| fatal.message)?;
        let steps = plan::device_steps(&plan.config, &device, &host).map_err(|error| error.to_string())?;
        let routes = self.wanted_routes(&plan.config, &device, &host).map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        if self.status.device_steps != steps {
            // The kernel drops routes with the address that they lead through.
            self.take_pushed(Vec::new());
            self.set_route_steps(Vec::new(), &mut lines);
            lines.extend(self.changes.exchange(&self.status.device_steps, &steps).err());
            self.status.before_routes = self.changes.mark();
        }
        self.status.device_steps = steps;
        lines.extend(self.changes.block(&full::blocks(&plan.config)).err());
        self.set_route_steps(routes, &mut lines);
        Ok(lines)
    }

    /// Another socket with the same keys.
    pub(super) fn take_new_socket(&mut self) {
        match start::secrets(&self.link.config, self.link.options.allow_open_keys) {
            Ok(keys) if cleanly(|| fingerprint(&keys.secret)) == self.link.fingerprint => {
                say!(1, "the link takes a new socket");
                self.replace_engine(keys);
            }
            Ok(_) => say!(1, "the link takes no new socket: its key file has changed, so reload it"),
            Err(fatal) => say!(1, "the link takes no new socket: {}", fatal.message),
        }
    }

    /// Another engine, with new keys and a new socket, for the same device.
    fn replace_engine(&mut self, keys: Box<Keys>) {
        self.status.replacing = true;
        self.stop_engine(FAREWELL);
        self.status.replacing = false;
        if self.is_ending() {
            return;
        }
        self.status.last_words = None;
        self.take_pushed(Vec::new());
        self.link_changed(false);
        self.front = None;
        let launched = start::bind(&self.link.config).map(|bound| {
            let settings = LinkSettings::from(&self.link.config);
            let mut start = start::engine_start(&self.link.config, keys, settings, &self.link.confinement);
            start.key_log = self.link.key_log.is_some();
            Launch { start: Box::new(start), socket: bound.fd, device_later: false }
        });
        match launched {
            Err(fatal) => self.end(fatal.code, fatal.message),
            Ok(launch) => match spawn(Role::Engine) {
                Ok((child, channel)) => self.start_engine(Engine { child, channel }, launch),
                Err(error) => self.end(FAILED, format!("cannot start the engine: {error}")),
            },
        }
    }
}
