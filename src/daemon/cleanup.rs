//! What this process has changed on the host, and how it is taken back.

use crate::device::Device;
use crate::route::netlink::Netlink;
use crate::route::plan::{Interface, Step};
use crate::say;

/// The changes to this host. Dropping it takes everything back, in the reverse order; removing the device is
/// the last.
pub struct Changes {
    /// The kernel's tables.
    pub netlink: Netlink,
    undo: Vec<Step>,
    device: Option<Device>,
}

/// A place in the list of changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark(usize);

impl Changes {
    /// Nothing changed yet.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, undo: Vec::new(), device: None }
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
    pub fn mark(&self) -> Mark {
        Mark(self.undo.len())
    }

    /// Carries out the steps, each shown at verb 3, and remembers how to take them back. The error names the
    /// command that failed; the steps before it stay, to be taken back with everything else.
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            say!(3, "{step}");
            self.netlink.apply(step).map_err(|error| error.to_string())?;
            self.undo.extend(step.undo());
        }
        Ok(())
    }

    /// Takes these steps back, the last first, before the others. What fails is logged and the rest goes on.
    pub fn take_back(&mut self, steps: &[Step]) {
        for undo in steps.iter().rev().filter_map(Step::undo) {
            if let Some(index) = self.undo.iter().rposition(|step| *step == undo) {
                self.undo.remove(index);
                self.undo_step(&undo);
            }
        }
    }

    fn undo_step(&mut self, step: &Step) {
        say!(3, "{step}");
        if let Err(error) = self.netlink.apply(step) {
            say!(1, "cannot undo: {error}");
        }
    }

    /// Takes back every change since `mark`, the last first. What fails is logged and the rest goes on.
    pub fn back_to(&mut self, mark: Mark) {
        while self.undo.len() > mark.0 {
            let Some(step) = self.undo.pop() else { return };
            self.undo_step(&step);
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.back_to(Mark::default());
        if let Some(device) = self.device.take() {
            say!(3, "removing {}", device.name);
        }
    }
}
