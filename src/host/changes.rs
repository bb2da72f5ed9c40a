//! What this process has changed on the host, and how it is undone.

use std::collections::HashMap;
use std::io;

use crate::device::Device;
use crate::host::directory::Directory;
use crate::host::ledger::Ledger;
use crate::route::netlink::Netlink;
use crate::route::plan::{Interface, Step};
use crate::route::step::difference;

/// Most steps of one call that are logged.
pub const SHOWN: usize = 20;
/// Most of their failures logged.
const FAILURES_SHOWN: usize = 5;
/// From this many steps on, the ledger is not rewritten for each undone step.
const MANY: usize = 1024;

/// The changes to this host. Dropping it undoes all but the blocks, in reverse order; the device is removed last.
pub struct Changes {
    /// The kernel's tables.
    pub netlink: Netlink,
    undo: Vec<Step>,
    /// Blocks, which only an orderly end removes.
    blocks: Vec<Step>,
    ledger: Ledger,
    device: Option<Device>,
}

/// A position in the list of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Savepoint(usize);

impl Changes {
    /// Starts without changes. First undoes what the ledger of a killed tund lists, as far as that is still as tund left it.
    pub fn new(netlink: Netlink, runtime: Option<&Directory>) -> Self {
        let mut ledger = Ledger::new(runtime);
        let undo = ledger.left_over();
        let (blocks, undo): (Vec<_>, Vec<_>) = undo.into_iter().partition(Step::opens);
        // What is closed stays closed until this start decides.
        let blocks = blocks.iter().filter_map(Step::done).collect();
        let mut changes = Self { netlink, undo: Vec::new(), blocks, ledger, device: None };
        if !undo.is_empty() {
            log::info!("undoing what a killed tund left");
        }
        changes.undo_left_over(undo);
        changes.rewrite();
        changes
    }

    /// Undoes leftovers. A later interface may have the same index or the same name, but not both.
    fn undo_left_over(&mut self, mut undo: Vec<Step>) {
        let mut links = HashMap::new();
        undo.retain(|step| {
            let (index, name) = step.interface();
            *links.entry((index, name.to_owned())).or_insert_with(|| match self.netlink.link(name) {
                Ok(link) => link.is_some_and(|link| link.index == index),
                Err(error) => {
                    log::warn!("cannot undo: {step}: {error}");
                    false
                }
            })
        });
        undo.reverse();
        self.undo_steps(&undo);
    }

    /// The device, if open.
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The device's interface, if open.
    pub fn interface(&self) -> Option<Interface> {
        self.device.as_ref().map(|device| Interface { index: device.index, name: device.name.clone() })
    }

    /// Keeps the device until the end.
    pub fn keep(&mut self, device: Device) {
        self.device = Some(device);
    }

    /// Closes the device, which is gone.
    pub fn release(&mut self) {
        self.device = None;
    }

    /// The current position in the list of changes.
    pub fn mark(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// The first `count` of the changes in force, and how many more there are.
    pub fn first_in_force(&self, count: usize) -> (Vec<Step>, usize) {
        let mut undo = self.undo.iter();
        let mut first: Vec<_> = self.blocks.iter().take(count).cloned().collect();
        while first.len() < count
            && let Some(step) = undo.next()
        {
            first.extend(step.done());
        }
        (first, undo.len())
    }

    /// Blocks exactly these prefixes. Dropping the changes does not undo that.
    pub fn block(&mut self, wanted: &[Step]) -> Result<(), String> {
        for step in wanted {
            if !self.blocks.contains(step) {
                // It is no longer undone in any case.
                self.undo.retain(|undo| Some(undo) != step.undo().as_ref());
                log::debug!("{step}");
                self.record(&[step.undo()]);
                self.netlink.apply(step).map_err(|error| error.to_string())?;
                self.blocks.push(step.clone());
            }
        }
        let (keep, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.blocks).into_iter().partition(|step| wanted.contains(step));
        self.blocks = keep;
        self.undo_steps(&gone.iter().filter_map(Step::undo).collect::<Vec<_>>());
        self.rewrite();
        Ok(())
    }

    /// The blocks, which only an orderly end removes.
    pub fn blocks(&self) -> &[Step] {
        &self.blocks
    }

    /// Repeats changes that are in force; a failure does not stop the rest. One result for each.
    pub fn repair(&mut self, steps: &[Step]) -> Vec<io::Result<bool>> {
        self.netlink.apply_all(steps)
    }

    /// Replaces a change that cannot be repeated. The new one is undone in its place.
    pub fn replace(&mut self, old: &Step, new: &Step) -> Result<(), String> {
        self.netlink.apply(new).map_err(|error| error.to_string())?;
        let (old, new) = (old.undo(), new.undo());
        if let (Some(place), Some(new)) =
            (self.undo.iter_mut().find(|step| Some(&**step) == old.as_ref()), new)
        {
            *place = new;
            self.rewrite();
        }
        Ok(())
    }

    /// Makes a change, which is recorded unless it already is.
    pub fn owe_once(&mut self, step: &Step) -> Result<(), String> {
        let undo = step.undo();
        if self.undo.iter().any(|there| Some(there) == undo.as_ref()) {
            return self.netlink.apply(step).map(drop).map_err(|error| error.to_string());
        }
        self.owe(std::slice::from_ref(step)).into_iter().next().map_or(Ok(()), Err)
    }

    /// Writes the ledger to a recreated runtime directory.
    pub fn move_to(&mut self, runtime: &Directory) {
        self.ledger.move_to(runtime);
        self.rewrite();
    }

    fn rewrite(&mut self) {
        let unblocking = self.unblocking();
        self.ledger.rewrite(unblocking.iter().chain(&self.undo));
    }

    fn record(&mut self, steps: &[Option<Step>]) {
        let unblocking = self.unblocking();
        self.ledger.record(unblocking.iter().chain(&self.undo), steps.iter().flatten());
    }

    fn unblocking(&self) -> Vec<Step> {
        self.blocks.iter().filter_map(Step::undo).collect()
    }

    /// Carries out the steps, each logged at verb 3, and records how to undo those that changed anything: an existing address or bridge port is not
    /// ours. The error names the command that failed. Earlier steps stay, to be undone with everything else, and so do routes directly after it.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), String> {
        for run in steps.chunk_by(|one, next| one.route().is_some() && next.route().is_some()) {
            if let Some(error) = self.apply_each(run).into_iter().next() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same, but continues after a failure. Returns the errors, the first ones if there are many.
    fn apply_each(&mut self, steps: &[Step]) -> Vec<String> {
        self.make(steps, |result| matches!(result, Ok(true)))
    }

    /// Makes changes that must be undone even if they fail now, since they are retried; what existed before is not ours. Returns the errors, the
    /// first ones if there are many.
    pub fn owe(&mut self, steps: &[Step]) -> Vec<String> {
        self.make(steps, |result| !matches!(result, Ok(false)))
    }

    /// Carries out the steps; those whose result is `ours` are undone later.
    fn make(&mut self, steps: &[Step], ours: impl Fn(&io::Result<bool>) -> bool) -> Vec<String> {
        show(steps);
        let undo: Vec<_> = steps.iter().map(Step::undo).collect();
        self.record(&undo);
        let results = self.netlink.apply_all(steps);
        let all = results.iter().all(&ours);
        let made = undo.into_iter().zip(&results).filter(|(_, result)| ours(result));
        self.undo.extend(made.filter_map(|(undo, _)| undo));
        if !all {
            self.rewrite();
        }
        failures(results)
    }

    /// Undoes the steps only in `old`, then makes those only in `new`. Returns the first error; the others are made all the same, and failed ones are
    /// still recorded.
    pub fn exchange(&mut self, old: &[Step], new: &[Step]) -> Result<(), String> {
        let (gone, more) = difference(old, new);
        self.take_back(&gone);
        self.owe(&more).into_iter().next().map_or(Ok(()), Err)
    }

    /// Undoes these steps ahead of the others, in reverse order. Failures are logged.
    pub fn take_back(&mut self, steps: &[Step]) {
        let mut wanted = HashMap::new();
        steps.iter().filter_map(Step::undo).for_each(|undo| *wanted.entry(undo).or_insert(0_usize) += 1);
        if wanted.is_empty() {
            return;
        }
        let (mut gone, mut kept) = (Vec::new(), Vec::with_capacity(self.undo.len()));
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match wanted.get_mut(&undo) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    gone.push(undo);
                }
                Some(_) | None => kept.push(undo),
            }
        }
        kept.reverse();
        self.undo = kept;
        if !gone.is_empty() {
            self.undo_steps(&gone);
            self.strike(gone.len());
        }
    }

    /// Strikes undone steps from the ledger: at once if it is short, once in a while if it is long, since removing a route that is gone does no harm.
    fn strike(&mut self, gone: usize) {
        if self.undo.len() < MANY || self.ledger.strike(gone) > self.undo.len() / 8 {
            self.rewrite();
        }
    }

    fn undo_steps(&mut self, steps: &[Step]) {
        show(steps);
        for error in failures(self.netlink.apply_all(steps)) {
            log::warn!("cannot undo: {error}");
        }
    }

    /// Undoes every change since `mark`, in reverse order. Failures are logged.
    pub fn roll_back_to(&mut self, mark: Savepoint) {
        if self.undo.len() <= mark.0 {
            return;
        }
        let mut gone = self.undo.split_off(mark.0);
        gone.reverse();
        self.undo_steps(&gone);
        self.rewrite();
    }
}

/// Logs the steps at verb 3, the first ones if there are many.
fn show(steps: &[Step]) {
    if log::log_enabled!(log::Level::Debug) {
        steps.iter().take(SHOWN).for_each(|step| log::debug!("{step}"));
        let more = steps.len().saturating_sub(SHOWN);
        if more > 0 {
            log::debug!("and {more} more like these");
        }
    }
}

/// Errors of steps, or the first of many.
fn failures(results: Vec<io::Result<bool>>) -> Vec<String> {
    let mut failed = results.into_iter().filter_map(Result::err);
    let mut failures: Vec<_> = failed.by_ref().take(FAILURES_SHOWN).map(|error| error.to_string()).collect();
    let more = failed.count();
    if more > 0 {
        failures.push(format!("{more} more changes failed"));
    }
    failures
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.roll_back_to(Savepoint::default());
        if let Some(device) = self.device.take() {
            log::debug!("removing {}", device.name);
        }
    }
}
