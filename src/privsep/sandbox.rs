//! What a process gives up before it reads the network: resources, its root directory, its identity and every capability, the file system and most
//! system calls. The order matters: the first steps need privileges that the later ones drop.

mod calls;
mod identity;
mod landlock;
mod names;
mod root;
mod seccomp;

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};

use super::message::Confinement;
use super::spawn::Role;
use crate::config::Sandbox;
use crate::sys::rights;

/// Most open descriptors: those of the lanes, and the runtime's.
const MAX_DESCRIPTORS: u64 = 256;

/// Why a process could not be confined; it must not go on.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A system call failed.
    #[error("cannot {what}: {source}{}", rights::beyond_capabilities(source))]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Everything succeeded, yet a privilege remains.
    #[error("still {0} after dropping privileges")]
    StillPrivileged(&'static str),
    /// Some protections are unavailable, and all are required.
    #[error("run.sandbox is \"require\", but this host lacks {0}; \"auto\" runs without")]
    Missing(String),
}

/// What is in force, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protections {
    /// One line for the log.
    pub in_force: String,
    /// What this host lacks, each with its reason; empty with `sandbox = "off"`.
    pub missing: Vec<String>,
}

/// Gives up everything that a process of this role does not need. Must run while the process has one thread. [`spawn`](super::spawn::spawn) has given
/// it only the descriptors that it needs.
pub fn lock(role: Role, confinement: &Confinement) -> Result<Protections, LockError> {
    identity::follow_parent()?;
    limit_resources()?;
    if let (Role::Engine, Some(nice)) = (role, confinement.nice) {
        setpriority_process(None, nice.into()).or_refused("set run.nice")?;
    }
    let rooted = confinement.root.as_deref().map(root::enter);
    identity::take_on(confinement.identity)?;
    let mut parts = vec![
        identity::describe(confinement.identity),
        "no capabilities, no new privileges, no core dumps".to_owned(),
    ];
    let mut missing = Vec::new();
    let mut note = |part: Result<String, String>| match part {
        Ok(part) => parts.push(part),
        Err(part) => missing.push(part),
    };
    rooted.into_iter().for_each(&mut note);
    if confinement.sandbox != Sandbox::Off {
        let services = role == Role::Resolver && asks_services();
        note(landlock::restrict(role, services));
        note(seccomp::filter(role, services));
    }
    if confinement.sandbox == Sandbox::Require && !missing.is_empty() {
        return Err(LockError::Missing(missing.join(", and ")));
    }
    Ok(Protections { in_force: parts.join(", "), missing })
}

/// Once a confined engine has started everything, forbids further threads and processes, and, to all its threads, the system calls needed only for
/// that.
pub fn start_no_more(sandbox: Sandbox) -> Result<(), LockError> {
    limit(Resource::Nproc, 0)?;
    let narrowed = match sandbox {
        Sandbox::Off => Ok(()),
        Sandbox::Auto | Sandbox::Require => seccomp::narrow(),
    };
    match narrowed {
        Err(error) if sandbox == Sandbox::Require => {
            Err(LockError::Missing(format!("system call filters ({error})")))
        }
        // That the kernel has none was reported before.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether name resolution uses services of this host.
fn asks_services() -> bool {
    // If it cannot be read, the C library goes without it.
    names::ask_services(&std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default())
}

/// Prevents writing files through a leaked descriptor, and core files.
fn limit_resources() -> Result<(), LockError> {
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, MAX_DESCRIPTORS)
}

fn limit(resource: Resource, most: u64) -> Result<(), LockError> {
    let most = getrlimit(resource).maximum.map_or(most, |present| present.min(most));
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).or_refused("limit resources")
}

fn refused(what: &'static str, source: Errno) -> LockError {
    LockError::Refused { what, source: source.into() }
}

trait OrRefused<T> {
    fn or_refused(self, what: &'static str) -> Result<T, LockError>;
}

impl<T> OrRefused<T> for Result<T, Errno> {
    fn or_refused(self, what: &'static str) -> Result<T, LockError> {
        self.map_err(|source| refused(what, source))
    }
}

#[cfg(test)]
mod tests;
