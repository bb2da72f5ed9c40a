//! Installs the peers' programs: Debian packages with apt-get, crates and packages of services below `target/tools`.

use std::path::Path;
use std::process::Command;

use tund_lab::scenario::Origin;
use tund_lab::{Error, rights};

use super::peer::Peer;

/// The error that tells how to get a program.
pub fn missing((program, origin): &(String, Origin)) -> Error {
    let remedy = match origin {
        Origin::Debian(package) => format!("apt-get install {package}, or bench --install"),
        Origin::Unpacked(package) => format!("unpack Debian's {package}, or bench --install"),
        Origin::Crate(name, version) => {
            format!("cargo install {name} --version {version}, or bench --install")
        }
        Origin::Path => return Error::new(format!("{program} is not on the PATH")),
    };
    Error::new(format!("{program} is not installed: {remedy}"))
}

/// Installs what is missing; an unobtainable program is reported and skipped.
pub fn all(peers: &[Peer]) -> Result<(), Error> {
    let tools = rights::tools().ok_or_else(|| Error::new("this program lies in no folder"))?;
    for (program, origin) in peers.iter().flat_map(|peer| &peer.rival.programs) {
        let mut command = match origin {
            _ if rights::find(program).is_some() => continue,
            Origin::Path => continue,
            Origin::Debian(package) => apt(package),
            Origin::Unpacked(package) => unpack(package, &tools),
            Origin::Crate(name, version) => {
                let mut command = Command::new("cargo");
                command.args(["install", name, "--version", version, "--locked", "--root"]).arg(&tools);
                command
            }
        };
        eprintln!("installing {program}");
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("{program} could not be installed: {status}"),
            Err(error) => eprintln!("{program} could not be installed: {:?}: {error}", command.get_program()),
        }
    }
    Ok(())
}

fn apt(package: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends", package]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Unpacks a package where [`rights::find`] looks, as `tests/run` does, and installs its libraries.
fn unpack(package: &str, tools: &Path) -> Command {
    const SCRIPT: &str = "set -e; mkdir -p \"$1\"; cd \"$1\"; \
         apt-get download -qq -o APT::Sandbox::User=root \"$2\"; \
         for file in \"$2\"_*.deb; do dpkg-deb -x \"$file\" .; \
         libraries=\"$libraries $(dpkg-deb -f \"$file\" Depends | grep -o 'lib[a-z][^ ,]*')\"; rm \"$file\"; done; \
         apt-get install --yes --no-install-recommends $libraries";
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(tools.join("inet")).arg(package);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
