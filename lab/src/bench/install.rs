//! Getting the peers' programs: Debian's packages by apt-get, crates and packages of services below `target/tools`.

use std::path::PathBuf;
use std::process::Command;

use tund_lab::{Error, rights};

use super::peer::{Peer, Source};

/// The folder of programs that [`all`] builds: beside the folder of this program's profile.
fn tools() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(|error| Error::new(format!("own program file: {error}")))?;
    let target = own.ancestors().nth(2).ok_or_else(|| Error::new("this program lies in no folder"))?;
    Ok(target.join("tools"))
}

/// Where a program is: among the built ones, else on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let built = tools().ok()?.join("bin").join(program);
    if built.is_file() { Some(built) } else { rights::find(program) }
}

/// The error that says how to get a program.
pub fn missing(program: &str, source: Source) -> Error {
    Error::new(match source {
        Source::Debian(package) => {
            format!("{program} is not installed: apt-get install {package}, or bench --install")
        }
        Source::Unpacked(package) => {
            format!("{program} is not installed: unpack Debian's {package}, or bench --install")
        }
        Source::Crate(name, version) => {
            format!(
                "{program} is not installed: cargo install {name} --version {version}, or bench --install"
            )
        }
        Source::Path => format!("{program} is not on the PATH"),
    })
}

/// Installs what is missing; a program that cannot be had is named and left out.
pub fn all() -> Result<(), Error> {
    for (program, source) in
        Peer::all().flat_map(|peer| peer.programs).filter(|(name, _)| find(name).is_none())
    {
        let mut command = match source {
            Source::Path => continue,
            Source::Debian(package) => apt(package),
            Source::Unpacked(package) => unpack(package)?,
            Source::Crate(name, version) => {
                let mut command = Command::new("cargo");
                command.args(["install", name, "--version", version, "--locked", "--root"]).arg(tools()?);
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

/// Unpacks a package where [`rights::find`] looks, as `tests/run` does, and installs the libraries that it needs.
fn unpack(package: &str) -> Result<Command, Error> {
    const SCRIPT: &str = "set -e; mkdir -p \"$1\"; cd \"$1\"; \
         apt-get download -qq -o APT::Sandbox::User=root \"$2\"; \
         for file in \"$2\"_*.deb; do dpkg-deb -x \"$file\" .; \
         libraries=\"$libraries $(dpkg-deb -f \"$file\" Depends | grep -o 'lib[a-z][^ ,]*')\"; rm \"$file\"; done; \
         apt-get install --yes --no-install-recommends $libraries";
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(tools()?.join("inet")).arg(package);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}
