//! What must be undone on this host, on disk: each step is written before its change is made, so that after a parent was killed the next start finds
//! it.
//!
//! The format is text: the boot id, then one JSON object per line and step. It is in the link's runtime directory, which belongs to one network
//! namespace. Only the holder of that directory's lock accesses it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::iter::Peekable;

use crate::config::MAX_ROUTES;
use crate::host::directory::Directory;
use crate::route::plan::Step;

/// Its name in the runtime directory.
const NAME: &str = "ledger";
/// Maximum length of a ledger, in bytes.
const LONGEST: u64 = MAX_ROUTES as u64 * LONGEST_LINE;
/// Maximum length of a route's line, in bytes.
const LONGEST_LINE: u64 = 320;

/// The steps that remain to restore the host.
#[derive(Debug, Default)]
pub struct Ledger {
    place: Option<Directory>,
    /// The first line for this boot.
    boot: String,
    /// Open for appending, once there is something to undo.
    file: Option<File>,
    /// How many of its steps are obsolete.
    struck: usize,
    /// A write has failed, and was logged: steps may be missing, or the last line cut.
    behind: bool,
}

impl Ledger {
    /// The ledger in `directory`; without one nothing is kept.
    pub fn new(directory: Option<&Directory>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self::of_boot(directory, boot.trim_end().to_owned())
    }

    fn of_boot(place: Option<&Directory>, boot: String) -> Self {
        Self { place: place.cloned(), boot, file: None, struck: 0, behind: false }
    }

    /// Uses this directory from now on.
    pub fn move_to(&mut self, place: &Directory) {
        (self.place, self.file) = (Some(place.clone()), None);
    }

    /// The steps left by a killed tund, in the order in which they were written. A ledger of another boot is ignored.
    pub fn left_over(&mut self) -> Vec<Step> {
        let Some(place) = &self.place else { return Vec::new() };
        match place.read(NAME, LONGEST) {
            Ok(bytes) => steps(&String::from_utf8_lossy(&bytes), &self.boot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                let place = place.path().display();
                log::warn!("cannot read {place}/{NAME}: {error}; what a killed tund left there stays");
                Vec::new()
            }
        }
    }

    /// Appends steps to be made at the end. After a failure it writes those `before` as well.
    pub fn record<'a>(
        &mut self,
        before: impl IntoIterator<Item = &'a Step>,
        steps: impl IntoIterator<Item = &'a Step>,
    ) {
        if self.behind {
            return self.rewrite(before.into_iter().chain(steps));
        }
        let written = self.append(steps.into_iter());
        self.check(written);
    }

    /// Replaces the content; without steps the file is removed.
    pub fn rewrite<'a>(&mut self, steps: impl IntoIterator<Item = &'a Step>) {
        self.struck = 0;
        let written = self.replace(&mut steps.into_iter().peekable());
        self.check(written);
    }

    /// Counts steps as obsolete, though still in the file; returns the total.
    pub fn strike(&mut self, steps: usize) -> usize {
        self.struck += steps;
        self.struck
    }

    /// The link can run without a ledger; it only leaves more behind if it is killed.
    fn check(&mut self, written: io::Result<()>) {
        let was_behind = std::mem::replace(&mut self.behind, written.is_err());
        if let (Some(place), Err(error), false) = (&self.place, written, was_behind) {
            let place = place.path().display();
            log::warn!(
                "cannot write {place}/{NAME}: {error}; if tund is killed, the next start cannot clean up"
            );
        }
    }

    fn append<'a>(&mut self, steps: impl Iterator<Item = &'a Step>) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let mut steps = steps.peekable();
        if steps.peek().is_none() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(begin(place, NAME, &self.boot)?),
        };
        write(file, steps)
    }

    fn replace<'a>(&mut self, steps: &mut Peekable<impl Iterator<Item = &'a Step>>) -> io::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        self.file = None;
        if steps.peek().is_none() {
            return place.remove(NAME);
        }
        let next = place.replace(NAME, |file| {
            file.write_all(format!("{}\n", self.boot).as_bytes())?;
            write(file, steps)
        })?;
        self.file = Some(next);
        Ok(())
    }
}

/// Appends a line for each step. After a crash, only the last may be cut.
fn write<'a>(file: &mut File, steps: impl Iterator<Item = &'a Step>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(64 << 10, file);
    for step in steps {
        serde_json::to_writer(&mut file, step)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

/// Creates a file, replacing any other.
fn begin(place: &Directory, name: &str, boot: &str) -> io::Result<File> {
    let mut file = place.create(name)?;
    file.write_all(format!("{boot}\n").as_bytes())?;
    Ok(file)
}

/// Parses the steps. A line without its end was cut by a kill, before its change was made.
fn steps(text: &str, boot: &str) -> Vec<Step> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    if boot.is_empty() || lines.next() != Some(boot) {
        return Vec::new();
    }
    let step = |line: &str| match serde_json::from_str::<Step>(line) {
        Ok(step) if step.only_undoes() => Some(step),
        Ok(step) => {
            log::warn!("the ledger says \"{step}\", which undoes nothing of tund's: it is left alone");
            None
        }
        Err(error) => {
            log::warn!("a line of the ledger cannot be parsed, so it is not undone: {error}");
            None
        }
    };
    lines.filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::step::{Family, KernelRoute, ROUTE_PROTOCOL, Rule};
    use crate::testing::Scratch;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_recorded_is_found_by_the_next_start() {
        let scratch = Scratch::new();
        let mut ledger = Ledger::new(Some(&scratch.directory()));
        assert_eq!(ledger.left_over(), []);
        assert!(!scratch.path().join("ledger").exists(), "a file without need");
        [leave(1), leave(2), leave(3)].iter().for_each(|step| ledger.record([], [step]));
        let mode = fs::metadata(scratch.path().join("ledger")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(ledger);
        let mut next = Ledger::new(Some(&scratch.directory()));
        assert_eq!(next.left_over(), [leave(1), leave(2), leave(3)]);
        next.rewrite(&[leave(2)]);
        next.record([], [&leave(4)]);
        assert_eq!(Ledger::new(Some(&scratch.directory())).left_over(), [leave(2), leave(4)]);
        next.rewrite(&[]);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_ledger_of_another_boot_is_not_read() {
        let scratch = Scratch::new();
        let ledger = |boot: &str| Ledger::of_boot(Some(&scratch.directory()), boot.to_owned());
        ledger("one").record([], [&leave(1)]);
        assert_eq!(ledger("one").left_over(), [leave(1)]);
        assert_eq!(ledger("other").left_over(), []);
        ledger("other").record([], [&leave(2)]);
        assert_eq!(ledger("one").left_over(), []);
        assert_eq!(ledger("").left_over(), [], "without a boot id nothing can be told apart");
    }

    #[test]
    fn a_line_cut_short_or_spoilt_costs_that_line_alone() {
        let scratch = Scratch::new();
        let path = scratch.path().join("ledger");
        let mut ledger = Ledger::of_boot(Some(&scratch.directory()), "boot".to_owned());
        [leave(1), leave(2)].iter().for_each(|step| ledger.record([], [step]));
        let whole = fs::read_to_string(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let found = ledger.left_over();
            assert!([&[][..], &[leave(1)]].contains(&&found[..]), "{length}: {found:?}");
        }
        fs::write(&path, whole.replacen('{', "[", 1)).unwrap();
        assert_eq!(ledger.left_over(), [leave(2)]);
    }

    #[test]
    fn no_link_is_followed_and_no_directory_is_needed() {
        let scratch = Scratch::new();
        fs::write(scratch.path().join("precious"), "kept").unwrap();
        std::os::unix::fs::symlink("precious", scratch.path().join("ledger")).unwrap();
        std::os::unix::fs::symlink("precious", scratch.path().join("ledger.new")).unwrap();
        let mut ledger = Ledger::new(Some(&scratch.directory()));
        assert_eq!(ledger.left_over(), []);
        ledger.record([], [&leave(1)]);
        ledger.rewrite(&[leave(2)]);
        assert_eq!(scratch.read("precious"), "kept");
        assert_eq!(ledger.left_over(), [leave(2)]);
        let mut nowhere = Ledger::new(None);
        nowhere.record([], [&leave(1)]);
        assert_eq!(nowhere.left_over(), []);
    }

    #[test]
    fn a_failed_write_loses_nothing_that_was_recorded_and_is_made_up_for() {
        let scratch = Scratch::new();
        let mut ledger = Ledger::new(Some(&scratch.directory()));
        let found = || Ledger::new(Some(&scratch.directory())).left_over();
        ledger.record([], &[leave(1), leave(2)]);
        // As on a full disk: nothing can be written beside it.
        fs::create_dir(scratch.path().join("ledger.new")).unwrap();
        ledger.rewrite(&[leave(2)]);
        ledger.record(&[leave(2)], &[leave(3)]);
        assert_eq!(found(), [leave(1), leave(2)]);
        fs::remove_dir(scratch.path().join("ledger.new")).unwrap();
        ledger.record(&[leave(2), leave(3)], &[leave(4)]);
        ledger.record(&[leave(2), leave(3), leave(4)], &[leave(5)]);
        assert_eq!(found(), [leave(2), leave(3), leave(4), leave(5)]);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_ledger_takes_back_what_is_tunds_and_does_nothing_else() {
        let scratch = Scratch::new();
        let route = |protocol: u8| KernelRoute {
            to: "172.31.0.0/16".parse().unwrap(),
            gateway: None,
            interface: 1,
            interface_name: "lo".to_owned(),
            metric: None,
            table: 254,
            protocol,
        };
        let (index, name, address) = (1, || "lo".to_owned(), "172.31.9.9/24".parse().unwrap());
        let (to, table) = ("10.0.0.0/8".parse().unwrap(), 17_000);
        let rule = Rule {
            family: Family::V4,
            priority: 17_000,
            table,
            unless_mark: Some(7),
            suppress_default: false,
        };
        let undoing = [
            Step::DeleteAddress { index, name: name(), address, peer: None },
            leave(1),
            Step::DeleteRoute(route(ROUTE_PROTOCOL)),
            Step::Unblock { to, table },
            Step::DeleteRule(rule.clone()),
        ];
        let planted = [
            Step::SetLink { index, name: name(), mtu: None, mac: None, txqueuelen: None, up: Some(false) },
            Step::AddAddress { index, name: name(), address, peer: None },
            Step::Join { index, name: name(), bridge: 2, bridge_name: "br0".to_owned() },
            Step::AddRoute(route(ROUTE_PROTOCOL)),
            Step::DeleteRoute(route(4)),
            Step::Block { to, table },
            Step::AddRule(rule),
        ];
        let mut ledger = Ledger::new(Some(&scratch.directory()));
        let (first, second) = undoing.split_at(2);
        for step in first.iter().chain(&planted).chain(second) {
            ledger.record([], [step]);
        }
        assert_eq!(Ledger::new(Some(&scratch.directory())).left_over(), undoing);
        // Steps that tund writes are among those it accepts.
        let all = planted.iter().chain(&undoing).filter_map(Step::undo);
        assert!(all.into_iter().all(|undo| undo.only_undoes()));
    }

    fn leave(index: u32) -> Step {
        Step::Leave { index, name: format!("tap{index}"), bridge: 9 }
    }
}
