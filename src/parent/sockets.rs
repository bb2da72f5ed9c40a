//! Where clients ask: the control socket, the link to it from the usual place, and the metrics. They are made at the start, and again if they vanish.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::config::Reporting;
use crate::control::scrape::Scrape;
use crate::control::server::{Pointer, SOCKET, Server};
use crate::host::directories::{self, Lock};
use crate::host::directory::Directory;
use crate::parent::Parent;
use crate::route::difference::Difference;
use crate::sys::rights;

/// The sockets. The link runs without them, too.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) server: Option<Server>,
    /// Leads from the usual place to a socket elsewhere.
    pointer: Option<Pointer>,
    pub(super) scrape: Option<Scrape>,
    /// For a recreated runtime directory; released after its files.
    lock: Option<Lock>,
}

/// Where `tund status` looks.
fn usual(runtime: Option<&Directory>) -> Option<PathBuf> {
    runtime.map(|directory| directory.path().join(SOCKET))
}

impl Sockets {
    /// Listens where the configuration says, else in the runtime directory, if any.
    pub(super) fn open(runtime: Option<&Directory>, places: &Reporting) -> Self {
        let mut sockets = Self::default();
        let failed = [sockets.make_control(runtime, places), sockets.make_metrics(places)];
        failed.into_iter().filter_map(Result::err).for_each(|error| log::warn!("{error}"));
        sockets
    }

    /// The descriptors to poll.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let scrape = self.scrape.iter().flat_map(Scrape::descriptors);
        self.server.iter().flat_map(Server::descriptors).chain(scrape)
    }

    /// The sockets that should exist and that clients cannot find.
    pub(super) fn lost(&self, runtime: Option<&Directory>, places: &Reporting) -> Vec<Difference> {
        let usual = usual(runtime);
        let place = places.socket.clone().or_else(|| usual.clone());
        let server = self.server.as_ref().is_some_and(Server::is_there);
        let pointer = usual == place || self.pointer.as_ref().is_some_and(Pointer::is_there);
        let control = if server { usual.filter(|_| !pointer) } else { place };
        let control =
            control.map(|path| Difference::ControlSocketMissing { path: path.display().to_string() });
        let metrics = places.metrics.filter(|_| self.scrape.is_none());
        control.into_iter().chain(metrics.map(|address| Difference::MetricsMissing { address })).collect()
    }

    fn make_control(&mut self, runtime: Option<&Directory>, places: &Reporting) -> Result<(), String> {
        let usual = usual(runtime);
        let Some(place) = places.socket.as_ref().or(usual.as_ref()) else { return Ok(()) };
        let refused = |error: io::Error| {
            let remedy = match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::AFNOSUPPORT) => "; a service's RestrictAddressFamilies= must include AF_UNIX",
                Some(Errno::NAMETOOLONG) => "; set run.runtime-dir to a shorter path",
                Some(Errno::ROFS | Errno::NOENT | Errno::ACCESS) if places.socket.is_some() => {
                    "; set status.socket to a file in an existing, writable directory"
                }
                _ => rights::beyond_capabilities(&error),
            };
            format!(
                "cannot listen at {}: {error}; `tund status` will not see this link{remedy}",
                place.display()
            )
        };
        match &mut self.server {
            Some(server) if server.is_there() => {}
            Some(server) => server.bind_again(place).map_err(refused)?,
            none => *none = Some(Server::bind(place).map_err(refused)?),
        }
        if let Some(directory) = runtime.filter(|_| usual.as_ref() != Some(place))
            && !self.pointer.as_ref().is_some_and(Pointer::is_there)
        {
            self.pointer = None;
            self.pointer = Some(Pointer::new(directory, SOCKET, place).map_err(refused)?);
        }
        Ok(())
    }

    fn make_metrics(&mut self, places: &Reporting) -> Result<(), String> {
        let Some(address) = places.metrics.filter(|_| self.scrape.is_none()) else { return Ok(()) };
        let scrape = Scrape::bind(address).map_err(|error| {
            let remedy = rights::to_bind(address.port(), &error);
            format!("cannot serve metrics at {address}, and the link runs without: {error}{remedy}")
        })?;
        self.scrape = Some(scrape);
        Ok(())
    }
}

impl Parent {
    /// The sockets that should exist and do not.
    pub(super) fn lost_sockets(&self) -> Vec<Difference> {
        self.control.sockets.lost(self.link.runtime.as_ref(), &self.link.config.status)
    }

    /// Makes the control socket again, and the runtime directory and its content if that is gone.
    pub(super) fn listen_again(&mut self) -> Result<(), String> {
        if let Some(gone) = self.link.runtime.as_ref().filter(|runtime| !runtime.is_there()) {
            let (runtime, lock) =
                directories::lock(gone, &self.link.config.name).map_err(|fatal| fatal.message)?;
            // For the next engine.
            directories::empty(&runtime);
            self.changes.move_to(&runtime);
            (self.link.runtime, self.control.sockets.lock) = (Some(runtime), Some(lock));
        }
        self.control.sockets.make_control(self.link.runtime.as_ref(), &self.link.config.status)
    }

    /// Serves the metrics, which failed before.
    pub(super) fn serve_metrics_again(&mut self) -> Result<(), String> {
        self.control.sockets.make_metrics(&self.link.config.status)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileTypeExt;

    use super::*;
    use crate::testing::{self, Scratch};

    #[test]
    fn the_usual_place_leads_to_a_socket_elsewhere_and_may_be_named_itself() {
        let scratch = Scratch::new();
        let usual = scratch.path().join(SOCKET);
        for (name, is_link) in [("elsewhere.sock", true), (SOCKET, false)] {
            let socket = scratch.path().join(name);
            let places = Reporting { socket: Some(socket.clone()), metrics: None };
            let sockets = Sockets::open(Some(&scratch.directory()), &places);
            assert!(sockets.server.is_some());
            assert_eq!(usual.is_symlink(), is_link, "{name}");
            assert!(fs::metadata(&usual).unwrap().file_type().is_socket(), "{name}");
            drop(sockets);
            assert!(!usual.exists() && !usual.is_symlink() && !socket.exists(), "{name}");
        }
    }

    #[test]
    fn a_socket_that_cannot_be_leaves_nothing_that_leads_to_it() {
        let scratch = Scratch::new();
        let places = Reporting { socket: Some("/absent/control.sock".into()), metrics: None };
        let sockets = Sockets::open(Some(&scratch.directory()), &places);
        assert!(sockets.server.is_none() && !scratch.path().join(SOCKET).is_symlink());
        let lost = sockets.lost(Some(&scratch.directory()), &places);
        assert_eq!(lost, [Difference::ControlSocketMissing { path: "/absent/control.sock".to_owned() }]);
    }

    #[test]
    fn what_was_removed_or_replaced_is_missed_and_made_again() {
        let scratch = Scratch::new();
        let (directory, usual, socket) =
            (scratch.directory(), scratch.path().join(SOCKET), scratch.path().join("own.sock"));
        let places = Reporting { socket: Some(socket.clone()), metrics: None };
        let mut sockets = Sockets::open(Some(&directory), &places);
        let missing = |path: &PathBuf| Difference::ControlSocketMissing { path: path.display().to_string() };
        for gone in [&socket, &usual] {
            for replaced in [false, true] {
                assert_eq!(sockets.lost(Some(&directory), &places), []);
                fs::remove_file(gone).unwrap();
                if replaced {
                    testing::leave_dead_socket(gone);
                }
                assert_eq!(sockets.lost(Some(&directory), &places), [missing(gone)]);
                sockets.make_control(Some(&directory), &places).unwrap();
            }
        }
        // Another program's file stays at the end, as it does while the link runs.
        fs::remove_file(&usual).unwrap();
        fs::write(&usual, "precious").unwrap();
        assert!(sockets.make_control(Some(&directory), &places).is_err());
        drop(sockets);
        assert_eq!((scratch.read(SOCKET), socket.exists()), ("precious".to_owned(), false));
    }

    #[test]
    fn metrics_are_served_once_their_port_is_free() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let places = Reporting { socket: None, metrics: Some(address) };
        let mut sockets = Sockets::open(None, &places);
        assert_eq!(sockets.lost(None, &places), [Difference::MetricsMissing { address }]);
        assert!(sockets.make_metrics(&places).is_err());
        drop(other);
        testing::wait_until(|| sockets.make_metrics(&places).is_ok());
        assert_eq!(sockets.lost(None, &places), []);
    }
}
