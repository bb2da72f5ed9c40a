//! What this process has changed on the host, and how it is taken back.

use std::collections::HashMap;
use std::io;

use crate::device::Device;
use crate::host::directory::Directory;
use crate::host::ledger::Ledger;
use crate::route::netlink::Netlink;
use crate::route::plan::{Interface, Step};
use crate::route::step::difference;

/// Most steps made together that are shown one by one.
pub const SHOWN: usize = 20;
/// Most of them whose failure is.
const FAILURES_SHOWN: usize = 5;
/// From so many steps on, the ledger is not written anew for each that is taken back.
const MANY: usize = 1024;

/// The changes to this host. Dropping it takes everything back, in the reverse order; removing the device is
/// the last.
pub struct Changes {
    /// The kernel's tables.
    pub netlink: Netlink,
    undo: Vec<Step>,
    /// Refusals that outlast everything but an end in order.
    blocks: Vec<Step>,
    ledger: Ledger,
    device: Option<Device>,
}

/// A place in the list of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Savepoint(usize);

impl Changes {
    /// Nothing changed yet: what a tund that was killed has left in the ledger of the runtime directory is taken back
    /// first, where it still is as that one left it.
    pub fn new(netlink: Netlink, runtime: Option<&Directory>) -> Self {
        let mut ledger = Ledger::new(runtime);
        let undo = ledger.left_over();
        let (blocks, undo): (Vec<_>, Vec<_>) = undo.into_iter().partition(Step::opens);
        // What is closed stays closed until this start has decided.
        let blocks = blocks.iter().filter_map(Step::done).collect();
        let mut changes = Self { netlink, undo: Vec::new(), blocks, ledger, device: None };
        if !undo.is_empty() {
            log::info!("taking back what a killed tund left");
        }
        changes.undo_left_over(undo);
        changes.rewrite();
        changes
    }

    /// An interface that came after may have the same index, or the same name, but not both.
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

    /// The device, once there is one.
    pub fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    /// The device's interface, once there is one.
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

    /// The present place in the list of changes.
    pub fn mark(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// The first `count` of the changes that hold now, and how many there are beside them.
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

    /// Refuses these prefixes and no others. Dropping the changes does not take that back.
    pub fn block(&mut self, wanted: &[Step]) -> Result<(), String> {
        for step in wanted {
            if !self.blocks.contains(step) {
                // What was to be taken back in any case is not any more.
                self.undo.retain(|undo| Some(undo) != step.undo().as_ref());
                log::debug!("{step}");
                self.ledger.record(step.undo().as_slice());
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

    /// The refusals that outlast everything but an end in order.
    pub fn blocks(&self) -> &[Step] {
        &self.blocks
    }

    /// Makes changes again that are among those that hold; what fails does not hold up the rest. One result for each.
    pub fn repair(&mut self, steps: &[Step]) -> Vec<io::Result<bool>> {
        self.netlink.apply_all(steps)
    }

    /// Makes a change in the place of one that cannot be made again: it is taken back when that one would have been.
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

    /// Makes a change that may have been made before; otherwise it is owed from now on.
    pub fn owe_once(&mut self, step: &Step) -> Result<(), String> {
        let undo = step.undo();
        if self.undo.iter().any(|there| Some(there) == undo.as_ref()) {
            return self.netlink.apply(step).map(drop).map_err(|error| error.to_string());
        }
        self.owe(std::slice::from_ref(step)).into_iter().next().map_or(Ok(()), Err)
    }

    /// The runtime directory has been made anew: the ledger is written there.
    pub fn move_to(&mut self, runtime: &Directory) {
        self.ledger.move_to(runtime);
        self.rewrite();
    }

    fn rewrite(&mut self) {
        let blocks: Vec<_> = self.blocks.iter().filter_map(Step::undo).collect();
        self.ledger.rewrite(blocks.iter().chain(&self.undo));
    }

    /// Carries out the steps, each shown at verb 3, and remembers how to take back those that changed anything:
    /// an address or a bridge port that was there before is not ours. The error names the command that failed;
    /// the steps before it stay, to be taken back with everything else, and so do routes that follow it at once.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), String> {
        for run in steps.chunk_by(|one, next| one.route().is_some() && next.route().is_some()) {
            if let Some(error) = self.apply_each(run).into_iter().next() {
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same, but goes on after a step that failed. The result is why they did, of very many the first.
    fn apply_each(&mut self, steps: &[Step]) -> Vec<String> {
        self.make(steps, |result| matches!(result, Ok(true)))
    }

    /// Makes changes that are to be there later on if they cannot be made now, so that they are taken back in any case; but what
    /// was there before is not ours. The result is why some failed, of very many the first.
    pub fn owe(&mut self, steps: &[Step]) -> Vec<String> {
        self.make(steps, |result| !matches!(result, Ok(false)))
    }

    /// Carries out the steps; those are taken back later whose result is `ours`.
    fn make(&mut self, steps: &[Step], ours: impl Fn(&io::Result<bool>) -> bool) -> Vec<String> {
        show(steps);
        let undo: Vec<_> = steps.iter().map(Step::undo).collect();
        self.ledger.record(undo.iter().flatten());
        let results = self.netlink.apply_all(steps);
        let all = results.iter().all(&ours);
        let made = undo.into_iter().zip(&results).filter(|(_, result)| ours(result));
        self.undo.extend(made.filter_map(|(undo, _)| undo));
        if !all {
            self.rewrite();
        }
        failures(results)
    }

    /// Takes back those of `old` that are not in `new`, then carries out those of `new` that are not in `old`. The error is the first;
    /// the others are carried out all the same, and what failed is owed.
    pub fn exchange(&mut self, old: &[Step], new: &[Step]) -> Result<(), String> {
        let (gone, more) = difference(old, new);
        self.take_back(&gone);
        self.owe(&more).into_iter().next().map_or(Ok(()), Err)
    }

    /// Takes these steps back, the last first, before the others. What fails is logged and the rest goes on.
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

    /// That so many steps are not to be taken back any more is written down at once while there are few. Of many it is
    /// written once in a while: a route that is gone already is not removed again.
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

    /// Takes back every change since `mark`, the last first. What fails is logged and the rest goes on.
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

/// Shows the steps at verb 3, of very many the first.
fn show(steps: &[Step]) {
    if log::log_enabled!(log::Level::Debug) {
        steps.iter().take(SHOWN).for_each(|step| log::debug!("{step}"));
        let more = steps.len().saturating_sub(SHOWN);
        if more > 0 {
            log::debug!("and {more} more like these");
        }
    }
}

/// Why steps failed, of very many the first.
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
