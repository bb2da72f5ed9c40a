//! A host's syslog service.

use crate::rights::PYTHON;
use crate::{Error, Host, Process};

/// Gives the host its own `/dev`, where only it can make sockets.
const OWN_DEV: &str = r#"set -e
mkdir -p "$0/net"
for node in null zero full random urandom tty net/tun; do
    [ -e "/dev/$node" ] || continue
    touch "$0/$node"
    mount --bind "/dev/$node" "$0/$node"
done
ln -s /proc/self/fd "$0/fd"
mkdir "$0/pts"
mount --bind /dev/pts "$0/pts"
ln -s pts/ptmx "$0/ptmx"
mount --rbind "$0" /dev"#;

/// Prints each datagram as a line.
const SERVICE: &str = r#"
import os, socket
service = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
service.bind("/dev/log")
os.chmod("/dev/log", 0o666)
print("ready", flush=True)
while True:
    print(service.recv(65536).decode(errors="replace"), flush=True)
"#;

impl Host {
    /// Starts a syslog service on the host's `/dev/log`; its output is one message per line.
    pub fn syslog(&self) -> Result<Process, Error> {
        let dev = self.dir().join("dev");
        self.output(&["sh", "-c", OWN_DEV, &dev.to_string_lossy()])?;
        let service = self.spawn(&[PYTHON, "-c", SERVICE])?;
        service.wait_line("ready", std::time::Duration::from_secs(20))?;
        Ok(service)
    }
}
