//! Reading the configuration again while the link runs.

use std::io;

use serde_json::json;

use crate::config::Config;
use crate::config::reload::{self, Change, Plan, Takes};
use crate::control::api;
use crate::crypto::keys::fingerprint;
use crate::crypto::stack::cleanly;
use crate::parent::Parent;
use crate::parent::engine::Next;
use crate::parent::machine::Event;
use crate::parent::notify;
use crate::parent::start;
use crate::privsep::message::{Keys, ToEngine};
use crate::report;
use crate::report::exit::{FAILED, Fatal};
use crate::route::full;
use crate::route::plan;
use crate::sys::clock::unix_time;
use crate::transport::{stream, udp};

impl Parent {
    /// Applies the file as it is now. If it has errors, they are logged, and nothing changes.
    pub(super) fn reload(&mut self) -> Option<Event> {
        log::info!("reading {} again", self.link.options.config.display());
        notify::reloading();
        let (result, then) = match self.try_reload() {
            Ok((lines, then)) => (Ok(lines), then),
            Err(reasons) => (Err(reasons), None),
        };
        self.control.reloaded = Some(result);
        then
    }

    /// Reports the outcome, once the new engine runs if one was needed.
    pub(super) fn finish_reload(&mut self) {
        let Some(result) = self.control.reloaded.take() else { return };
        self.control.reload_ok = result.is_ok();
        let answer = match result {
            Ok(lines) => {
                self.control.loaded = unix_time();
                lines.iter().for_each(|line| log::info!("reload: {line}"));
                api::reply(&json!({ "changes": lines }))
            }
            Err(reasons) => {
                reasons.iter().for_each(|reason| log::warn!("reload: {reason}"));
                log::warn!("reload: the old configuration stays");
                api::refusal(&format!("the old configuration stays: {}", reasons.join("; ")))
            }
        };
        for client in std::mem::take(&mut self.control.reload_asked) {
            self.reply(client, &answer);
        }
        notify::ready();
    }

    /// The changes, and whether the engine must be replaced.
    fn try_reload(&mut self) -> Result<(Vec<String>, Option<Event>), Vec<String>> {
        if self.engine.is_none() {
            return Err(vec!["the link is still starting; try again".to_owned()]);
        }
        let (_, mut config) = start::read_again(&self.link.options)?;
        start::take_bridge_mtu(&mut config, &mut self.changes.netlink);
        let keys = start::secrets(&config, self.link.options.allow_open_keys).map_err(|e| vec![e.message])?;
        self.take_over(&config, keys)
    }

    fn take_over(
        &mut self,
        config: &Config,
        keys: Box<Keys>,
    ) -> Result<(Vec<String>, Option<Event>), Vec<String>> {
        let fingerprint = cleanly(|| fingerprint(&keys.secret));
        let plan = reload::plan(&self.link.config, config, fingerprint != self.link.fingerprint);
        if self.link.activated && plan.takes() == Takes::Connect {
            let connect = plan.changes.iter().filter(|change| change.takes == Takes::Connect);
            let what: Vec<_> = connect.map(|change| change.what.as_str()).collect();
            return Err(vec![format!(
                "{}: a link with a socket from inetd or systemd has to be restarted",
                what.join(", ")
            )]);
        }
        if plan.takes() == Takes::Connect {
            self.try_sockets(&plan.config).map_err(|error| vec![error.to_string()])?;
        }
        let mut lines: Vec<_> = plan.changes.iter().map(Change::to_string).collect();
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        lines.extend(self.change_host(&plan).map_err(|error| vec![error])?);
        let takes = plan.takes();
        self.link.config = plan.config;
        report::log::set_verb(self.link.config.run.verb);
        if takes >= Takes::Call {
            self.resolver = super::resolver(&self.link);
            self.streams.forget_trouble();
        }
        self.link.fingerprint = fingerprint;
        match takes {
            Takes::Connect => {
                self.next = Some(Next::Keys(keys));
                return Ok((lines, Some(Event::Replace)));
            }
            Takes::Nothing | Takes::Call | Takes::Restart => {
                self.tell_sources();
                self.answer(&ToEngine::Settings(Box::new(self.settings())));
                if takes == Takes::Call {
                    self.answer(&ToEngine::Reconnect);
                }
            }
        }
        Ok((lines, None))
    }

    /// Whether the new sockets can be bound. The link's own, which it gives up for them, do not count as in the way.
    fn try_sockets(&self, config: &Config) -> io::Result<()> {
        let own = self.front.as_ref().and_then(|front| udp::local_port(front).ok());
        let streams = |config: &Config| config.listen.stream.map(|listen| listen.port);
        let tried = [
            (udp::bind(config).map(drop), own == Some(config.listen.port)),
            (stream::listen(config).map(drop), streams(config) == streams(&self.link.config)),
        ];
        let in_use = io::ErrorKind::AddrInUse;
        tried.into_iter().try_for_each(|(tried, own)| {
            tried.or_else(|error| if own && error.kind() == in_use { Ok(()) } else { Err(error) })
        })
    }

    /// Changes addresses and routes as planned; without a device, they wait for it. Errors occur before any change; later failures are lines of the
    /// result.
    fn change_host(&mut self, plan: &Plan) -> Result<Vec<String>, String> {
        let Some(device) = self.changes.interface() else { return Ok(Vec::new()) };
        let host = self.survey_for(&plan.config).map_err(|fatal| fatal.message)?;
        let steps = plan::device_steps(&plan.config, &device, &host).map_err(|error| error.to_string())?;
        let routes = self.wanted_routes(&plan.config, &device, &host).map_err(|error| error.to_string())?;
        let mut lines = Vec::new();
        if self.status.device_steps != steps {
            // The kernel drops routes together with their gateway's address.
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

    /// Takes another socket with the same keys.
    pub(super) fn take_new_socket(&mut self) -> Option<Event> {
        let tried = self.try_sockets(&self.link.config).map_err(|error| error.to_string());
        match tried.and_then(|()| self.same_keys()) {
            Ok(keys) => {
                log::info!("the link gets a new socket");
                self.next = Some(Next::Keys(keys));
                Some(Event::Replace)
            }
            Err(reason) => {
                log::warn!("the link gets no new socket: {reason}");
                None
            }
        }
    }

    /// Forgets a device that was deleted; another engine gets its replacement.
    pub(super) fn renew_device(&mut self) -> Result<(), Fatal> {
        self.changes.release();
        let keys = self
            .same_keys()
            .map_err(|reason| Fatal::new(FAILED, format!("the device stays lost: {reason}")))?;
        self.next = Some(Next::Keys(keys));
        Ok(())
    }

    fn same_keys(&self) -> Result<Box<Keys>, String> {
        let keys = start::secrets(&self.link.config, self.link.options.allow_open_keys)
            .map_err(|fatal| fatal.message)?;
        let same = cleanly(|| fingerprint(&keys.secret)) == self.link.fingerprint;
        same.then_some(keys).ok_or_else(|| "its key file has changed, so reload it".to_owned())
    }

    /// Takes the grown MTU of the bridge. The file is not read again, as it may be half edited.
    pub(super) fn take_bridge_mtu(&mut self) -> Option<Event> {
        let mut config = self.link.config.clone();
        start::take_bridge_mtu(&mut config, &mut self.changes.netlink);
        let keys = self.same_keys().map_err(|reason| vec![reason]);
        match keys.and_then(|keys| self.take_over(&config, keys)) {
            Ok((lines, then)) => {
                lines.iter().for_each(|line| log::info!("with the bridge: {line}"));
                then
            }
            Err(reasons) => {
                self.watch.complain(format!("the MTU of the device stays: {}", reasons.join("; ")));
                None
            }
        }
    }
}
