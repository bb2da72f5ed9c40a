//! Recording what crosses the interfaces of the hosts, for Wireshark.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::World;
use crate::{At, Error, Process, rights};

/// How long the recorder may take to begin, or to write its last packets.
const PATIENCE: Duration = Duration::from_secs(20);

/// Recorders of all hosts. Dropping them ends the recording.
pub struct Capture {
    recorders: Vec<Process>,
}

impl Capture {
    /// Records every host's interfaces, also those that come later, to `folder/HOST.pcapng`.
    pub fn start(world: &World, folder: &Path) -> Result<Self, Error> {
        rights::require("dumpcap")?;
        fs::create_dir_all(folder).at(folder.display())?;
        let folder = folder.canonicalize().at(folder.display())?;
        let mut recorders = Vec::new();
        for name in world.hosts() {
            let host = world.host(name)?;
            let mut command = host.command("dumpcap");
            // This form of the link layer keeps the interface of every packet.
            command
                .args(["-q", "-i", "any", "-y", "LINUX_SLL2", "-w"])
                .arg(folder.join(format!("{name}.pcapng")));
            recorders.push(Process::spawn(format!("{name}: dumpcap"), command)?);
        }
        for recorder in &recorders {
            recorder.wait_line("File:", PATIENCE)?;
        }
        Ok(Self { recorders })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for recorder in &mut self.recorders {
            let _ = recorder.terminate(PATIENCE);
        }
    }
}
