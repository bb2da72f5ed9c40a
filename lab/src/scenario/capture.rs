//! Records the traffic of the hosts' interfaces, for Wireshark.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::World;
use crate::{At, Error, Process, rights};

/// How long the recorder may take to start, or to write its last packets.
const PATIENCE: Duration = Duration::from_secs(20);

/// Wireshark's dissector for a link's outer traffic.
const DISSECTOR: [(&str, &str); 2] = [
    ("tund.lua", include_str!("../../wireshark/tund.lua")),
    ("tund_crypto.lua", include_str!("../../wireshark/tund_crypto.lua")),
];

/// Recorders of all hosts. Dropping them ends the recording.
pub struct Capture {
    recorders: Vec<Process>,
    folder: PathBuf,
    keys: Vec<PathBuf>,
}

impl Capture {
    /// Records all interfaces of every host, including later ones, to `folder/HOST.pcapng`, beside the keys of links started from now on and the
    /// dissector.
    pub fn start(world: &mut World, folder: &Path) -> Result<Self, Error> {
        rights::require("dumpcap")?;
        fs::create_dir_all(folder).at(folder.display())?;
        let folder = folder.canonicalize().at(folder.display())?;
        for (name, text) in DISSECTOR {
            fs::write(folder.join(name), text).at(folder.join(name).display())?;
        }
        let keys = world.log_keys(&folder);
        let mut recorders = Vec::new();
        for name in world.hosts() {
            let host = world.host(name)?;
            let mut command = host.command("dumpcap");
            // This link-layer type records each packet's interface.
            command
                .args(["-q", "-i", "any", "-y", "LINUX_SLL2", "-w"])
                .arg(folder.join(format!("{name}.pcapng")));
            recorders.push(Process::spawn(format!("{name}: dumpcap"), command)?);
        }
        for recorder in &recorders {
            recorder.wait_line("File:", PATIENCE)?;
        }
        Ok(Self { recorders, folder, keys })
    }

    /// The command that shows a host's recording, including the content of links.
    pub fn viewer(&self, host: &str) -> String {
        let folder = self.folder.display();
        let keys: Vec<_> = self.keys.iter().map(|file| file.display().to_string()).collect();
        let keys = keys.join(",");
        format!("wireshark -X lua_script:{folder}/tund.lua -o tund.keylog:{keys} -r {folder}/{host}.pcapng")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for recorder in &mut self.recorders {
            let _ = recorder.terminate(PATIENCE);
        }
    }
}
