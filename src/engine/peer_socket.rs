//! When the peer gets a socket of its own: while frames pass, for the path they arrive on.

use crate::core::bulk::Command;
use crate::core::path::Path;

/// The link's decisions about it, and what the parent was asked for.
#[derive(Debug, Default)]
pub struct PeerSocket {
    path: Option<Path>,
    agreed: bool,
    asked: Option<Path>,
}

impl PeerSocket {
    /// Notes a command to the lane.
    pub fn note(&mut self, command: &Command) {
        self.path = command.endpoint().or(self.path);
        self.agreed = command.agreed().unwrap_or(self.agreed);
    }

    /// The path that now needs a socket, if that changed; the inner `None` means no path does.
    pub fn poll(&mut self) -> Option<Option<Path>> {
        let wanted = self.path.filter(|path| self.agreed && !path.stream);
        (wanted != self.asked).then(|| {
            self.asked = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lane::ReceiveCommand;

    #[test]
    fn a_socket_is_wanted_for_the_way_of_a_peer_that_fits() {
        let [one, two] = [1, 2].map(|last| Path::from(std::net::SocketAddr::from(([192, 0, 2, last], 1417))));
        let mut socket = PeerSocket::default();
        let mut after = |command: ReceiveCommand| {
            socket.note(&Command::Tund(command.into()));
            socket.poll()
        };
        assert_eq!(after(ReceiveCommand::Endpoint(one)), None);
        assert_eq!(after(ReceiveCommand::Agreed(true)), Some(Some(one)));
        assert_eq!(after(ReceiveCommand::Agreed(true)), None);
        assert_eq!(after(ReceiveCommand::Endpoint(two)), Some(Some(two)));
        assert_eq!(after(ReceiveCommand::Agreed(false)), Some(None));
    }
}
