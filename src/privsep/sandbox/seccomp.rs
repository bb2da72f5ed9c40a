//! System call filters (seccomp(2)), inherited by later threads.
//!
//! There are three answers. A call on the role's list passes. A call that only an attacker makes (see [`HOSTILE`]) kills the process, which its
//! parent reports, unlike a refusal. Every other call fails with ENOSYS, as on a kernel without it: the C library has fallbacks for that, so
//! that a later version with a new call degrades instead of dying, and no harmless call is fatal.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, apply_filter_all_threads,
};

use super::calls::{ENGINE, EVERYONE, HOSTILE, RESOLVER, SERVICES, STARTING};
use crate::privsep::spawn::Role;

/// Which uses of a system call are meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    /// All.
    Any,
    /// If the argument (its low 32 bits, counted from 0) is one of these.
    Among(u8, &'static [u32]),
    /// If this argument and the next are one of these pairs.
    Pairs(u8, &'static [(u32, u32)]),
    /// If the argument's bits in the mask have this value.
    Bits(u8, u32, u32),
    /// On this process.
    Self_,
}

pub(super) type Call = (c_long, Use);

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Restricts this thread; a resolver may ask this host's services if `services`. Returns what is in force, or why nothing is.
pub(super) fn filter(role: Role, services: bool) -> Result<String, String> {
    let own: &[Call] = match role {
        Role::Engine | Role::Caller | Role::ProxyCaller => ENGINE,
        Role::Resolver => RESOLVER,
    };
    let services = if services { SERVICES } else { &[] };
    let calls: Vec<Call> = EVERYONE.iter().chain(own).chain(services).copied().collect();
    let hostile: Vec<Call> = HOSTILE.iter().map(|call| (*call, Use::Any)).collect();
    let refuse = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    install(&hostile, SeccompAction::KillProcess, SeccompAction::Allow)
        .and_then(|()| install(&calls, SeccompAction::Allow, refuse))
        .map_err(|error| format!("system call filters ({error})"))?;
    Ok(format!("{} system calls", calls.len()))
}

/// Installs a filter: `listed` for these calls, `others` for the rest.
pub(super) fn install(calls: &[Call], listed: SeccompAction, others: SeccompAction) -> Result<(), Error> {
    apply_filter(&program(calls, listed, others)?)
}

/// Forbids to all threads of a confined engine what only its start needed.
pub(super) fn narrow() -> Result<(), Error> {
    let calls: Vec<Call> = STARTING.iter().map(|call| (*call, Use::Any)).collect();
    let refuse = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    apply_filter_all_threads(&program(&calls, refuse, SeccompAction::Allow)?)
}

fn program(calls: &[Call], listed: SeccompAction, others: SeccompAction) -> Result<BpfProgram, Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let mut rules = Rules::new();
    for (call, what) in calls {
        rules.entry(*call).or_default().extend(alternatives(*what)?);
    }
    Ok(SeccompFilter::new(rules, others, listed, arch)?.try_into()?)
}

/// The rules for a use; empty for any.
fn alternatives(what: Use) -> Result<Vec<SeccompRule>, Error> {
    let rule = |argument, operator, value: u32| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value))?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    match what {
        Use::Any => Ok(Vec::new()),
        Use::Among(argument, values) => {
            values.iter().map(|value| rule(argument, SeccompCmpOp::Eq, *value)).collect()
        }
        Use::Pairs(argument, pairs) => {
            let both = |(first, second): &(u32, u32)| {
                let is = |argument, value: u32| {
                    let operator = SeccompCmpOp::Eq;
                    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
                };
                Ok(SeccompRule::new(vec![is(argument, *first)?, is(argument + 1, *second)?])?)
            };
            pairs.iter().map(both).collect()
        }
        Use::Bits(argument, mask, value) => {
            Ok(vec![rule(argument, SeccompCmpOp::MaskedEq(u64::from(mask)), value)?])
        }
        Use::Self_ => Ok(vec![rule(0, SeccompCmpOp::Eq, std::process::id())?]),
    }
}
