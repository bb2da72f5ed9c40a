//! Why and with which exit code the program ends; codes follow sysexits(3).

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::panic::PanicHookInfo;
use std::process::ExitStatus;

use crate::privsep::message::End;

/// It ran, then failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// A device or an address is unavailable.
pub const UNAVAILABLE: u8 = 69;
/// A defect of tund.
pub const BUG: u8 = 70;
/// A privilege is missing.
pub const PRIVILEGE: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;

/// The exit code for this end of an engine.
pub fn code(end: End) -> u8 {
    match end {
        End::Done => 0,
        End::Failed | End::DeviceLost => FAILED,
        End::Unavailable => UNAVAILABLE,
        End::Bug => BUG,
    }
}

/// Why tund ends. The text names the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    /// The process's exit code.
    pub code: u8,
    /// One line; empty if already reported.
    pub message: String,
}

impl Fatal {
    /// An end with this exit code and message.
    pub fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// One line about a panic.
pub fn bug(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("unknown").replace('\n', " ");
    let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
    format!("this is a bug, please report it: {text}{}", place.unwrap_or_default())
}

/// Describes how an engine ended that gave no reason.
pub fn of_engine(status: io::Result<ExitStatus>) -> String {
    const FORBIDDEN_CALL: Option<i32> = Some(rustix::process::Signal::SYS.as_raw());
    match status {
        Ok(status) if status.signal() == FORBIDDEN_CALL => {
            "the engine was killed for a system call that it never makes; it may have been compromised"
                .to_owned()
        }
        Ok(status) => format!("the engine died ({status}); this is a bug in tund"),
        Err(error) => format!("the engine died ({error}); this is a bug in tund"),
    }
}
