//! What this process has changed on the host, and how it is taken back.

use crate::device::Device;
use crate::host::directory::Directory;
use crate::host::ledger::Ledger;
use crate::route::netlink::Netlink;
use crate::route::plan::{Interface, Step};
use crate::say;

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
            say!(1, "taking back what a killed tund left");
        }
        for step in undo.iter().rev() {
            changes.undo_left_over(step);
        }
        changes.rewrite();
        changes
    }

    /// An interface that came after may have the same index, or the same name, but not both.
    fn undo_left_over(&mut self, step: &Step) {
        let (index, name) = step.interface();
        match self.netlink.link(name) {
            Ok(Some(link)) if link.index == index => self.undo_step(step),
            Ok(Some(_) | None) => {}
            Err(error) => say!(1, "cannot undo: {step}: {error}"),
        }
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

    /// The present place in the list of changes.
    pub fn mark(&self) -> Savepoint {
        Savepoint(self.undo.len())
    }

    /// The changes that hold now, oldest first, as they were made.
    pub fn in_force(&self) -> Vec<Step> {
        self.blocks.iter().cloned().chain(self.undo.iter().filter_map(Step::done)).collect()
    }

    /// Refuses these prefixes and no others. Dropping the changes does not take that back.
    pub fn block(&mut self, wanted: &[Step]) -> Result<(), String> {
        for step in wanted {
            if !self.blocks.contains(step) {
                // What was to be taken back in any case is not any more.
                self.undo.retain(|undo| Some(undo) != step.undo().as_ref());
                say!(3, "{step}");
                step.undo().iter().for_each(|undo| self.ledger.record(undo));
                self.netlink.apply(step).map_err(|error| error.to_string())?;
                self.blocks.push(step.clone());
            }
        }
        let (keep, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.blocks).into_iter().partition(|step| wanted.contains(step));
        self.blocks = keep;
        for undo in gone.iter().filter_map(Step::undo) {
            self.undo_step(&undo);
        }
        self.rewrite();
        Ok(())
    }

    /// The refusals that outlast everything but an end in order.
    pub fn blocks(&self) -> &[Step] {
        &self.blocks
    }

    /// Makes a change again that was made before.
    pub fn repair(&mut self, step: &Step) -> Result<(), String> {
        self.netlink.apply(step).map(drop).map_err(|error| error.to_string())
    }

    /// Makes a change in the place of one that cannot be made again: it is taken back when that one would have been.
    pub fn replace(&mut self, old: &Step, new: &Step) -> Result<(), String> {
        self.repair(new)?;
        let (old, new) = (old.undo(), new.undo());
        if let (Some(place), Some(new)) =
            (self.undo.iter_mut().find(|step| Some(&**step) == old.as_ref()), new)
        {
            *place = new;
            self.rewrite();
        }
        Ok(())
    }

    /// Makes a change that is to be there later on if it cannot be made now, so that it is taken back in any case; but what was
    /// there before is not ours.
    pub fn owe(&mut self, step: &Step) -> Result<(), String> {
        say!(3, "{step}");
        let undo = step.undo();
        undo.iter().for_each(|undo| self.ledger.record(undo));
        let result = self.netlink.apply(step);
        if matches!(result, Ok(false)) {
            self.rewrite();
        } else {
            self.undo.extend(undo);
        }
        result.map(drop).map_err(|error| error.to_string())
    }

    /// The same for a change that may have been made before.
    pub fn owe_once(&mut self, step: &Step) -> Result<(), String> {
        let undo = step.undo();
        if self.undo.iter().any(|there| Some(there) == undo.as_ref()) {
            self.repair(step)
        } else {
            self.owe(step)
        }
    }

    fn rewrite(&mut self) {
        let blocks = self.blocks.iter().filter_map(Step::undo);
        let steps: Vec<_> = blocks.chain(self.undo.iter().cloned()).collect();
        self.ledger.rewrite(&steps);
    }

    /// Carries out the steps, each shown at verb 3, and remembers how to take back those that changed anything:
    /// an address or a bridge port that was there before is not ours. The error names the command that failed;
    /// the steps before it stay, to be taken back with everything else.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            say!(3, "{step}");
            let undo = step.undo();
            undo.iter().for_each(|undo| self.ledger.record(undo));
            match self.netlink.apply(step) {
                Ok(true) => self.undo.extend(undo),
                other => {
                    self.rewrite();
                    other.map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// Takes back those of `old` that are not in `new`, then carries out those of `new` that are not in `old`. The error is the first;
    /// the others are carried out all the same, and what failed is owed.
    pub fn exchange(&mut self, old: &[Step], new: &[Step]) -> Result<(), String> {
        let without = |these: &[Step], those: &[Step]| -> Vec<Step> {
            these.iter().filter(|step| !those.contains(step)).cloned().collect()
        };
        self.take_back(&without(old, new));
        let results: Vec<_> = without(new, old).iter().map(|step| self.owe(step)).collect();
        results.into_iter().collect()
    }

    /// Takes these steps back, the last first, before the others. What fails is logged and the rest goes on.
    pub fn take_back(&mut self, steps: &[Step]) {
        let before = self.undo.len();
        for undo in steps.iter().rev().filter_map(Step::undo) {
            if let Some(index) = self.undo.iter().rposition(|step| *step == undo) {
                self.undo.remove(index);
                self.undo_step(&undo);
            }
        }
        if self.undo.len() < before {
            self.rewrite();
        }
    }

    fn undo_step(&mut self, step: &Step) {
        say!(3, "{step}");
        if let Err(error) = self.netlink.apply(step) {
            say!(1, "cannot undo: {error}");
        }
    }

    /// Takes back every change since `mark`, the last first. What fails is logged and the rest goes on.
    pub fn roll_back_to(&mut self, mark: Savepoint) {
        if self.undo.len() <= mark.0 {
            return;
        }
        while self.undo.len() > mark.0 {
            let Some(step) = self.undo.pop() else { break };
            self.undo_step(&step);
        }
        self.rewrite();
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.roll_back_to(Savepoint::default());
        if let Some(device) = self.device.take() {
            say!(3, "removing {}", device.name);
        }
    }
}
