//! When the peer has a socket of its own: while frames pass, for the way that they come.

use crate::core::bulk::Command;
use crate::core::path::Path;

/// What the link decided of that, and what was asked of the parent.
#[derive(Debug, Default)]
pub struct PeerSocket {
    path: Option<Path>,
    agreed: bool,
    asked: Option<Path>,
}

impl PeerSocket {
    /// Takes note of a command to the lane.
    pub fn note(&mut self, command: &Command) {
        self.path = command.endpoint().unwrap_or(self.path);
        self.agreed = command.agreed().unwrap_or(self.agreed);
    }

    /// The way that a socket is wanted for now, if that has changed: `None` in it, for none.
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
        assert_eq!(after(ReceiveCommand::Endpoint(Some(one))), None);
        assert_eq!(after(ReceiveCommand::Agreed(true)), Some(Some(one)));
        assert_eq!(after(ReceiveCommand::Agreed(true)), None);
        assert_eq!(after(ReceiveCommand::Endpoint(Some(two))), Some(Some(two)));
        assert_eq!(after(ReceiveCommand::Agreed(false)), Some(None));
    }
}
