//! A running scenario.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::file::{Way, plug};
use super::measure::{self, Bound, Figure, Measured, captured, target};
use super::{Check, Phase, Scenario, Step};
use crate::{At, Error, Host, Net, Process, rights, write_script};

/// How soon a check must hold.
const SOON: Duration = Duration::from_secs(40);
/// Time limit for a shell script of a check or a step.
const SCRIPT: Duration = Duration::from_secs(20);
/// Time limit for an end of a link to stop.
const GOING: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// A scenario's hosts and what runs on them. Fields drop in this order: the world last.
pub struct World {
    scenario: Scenario,
    running: BTreeMap<(String, String), Running>,
    hosts: BTreeMap<String, Arc<Host>>,
    tund: PathBuf,
    /// Where each end of a link logs its keys.
    key_logs: Option<PathBuf>,
    /// Lines logged by links, each with its host, not yet taken.
    said: Vec<(String, String)>,
    _net: Net,
}

/// The result of a look at a check.
struct Look {
    held: bool,
    seen: String,
    measured: Option<Measured>,
}

/// A program, and its log position at the end of the last phase.
struct Running {
    process: Process,
    is_link: bool,
    mark: usize,
}

impl World {
    /// Builds hosts and cables; `tund` is the daemon. Nothing runs yet.
    pub fn new(scenario: Scenario, tund: &Path) -> Result<Self, Error> {
        scenario.verify()?;
        for program in &scenario.programs {
            rights::require(program)?;
        }
        if let Some(lacks) = scenario.kernel_lacks()? {
            return Err(Error::new(lacks));
        }
        let net = Net::new()?;
        let mut hosts = BTreeMap::new();
        for name in scenario.host.keys() {
            hosts.insert(name.clone(), Arc::new(net.host(name)?));
        }
        for [(a, a_name), (b, b_name)] in scenario.plugs()? {
            net.cable(host(&hosts, a)?, a_name, host(&hosts, b)?, b_name)?;
        }
        let (running, tund, said) = (BTreeMap::new(), tund.to_owned(), Vec::new());
        let world = Self { scenario, running, hosts, tund, key_logs: None, said, _net: net };
        world.make_keys()?;
        for (name, plan) in &world.scenario.host {
            world.prepare(name, plan)?;
        }
        Ok(world)
    }

    /// Starts all services and links.
    pub fn start_all(&mut self) -> Result<(), Error> {
        self.scenario.host.clone().keys().try_for_each(|name| self.start_host(name))
    }

    /// Starts the services and links of one host.
    pub fn start_host(&mut self, name: &str) -> Result<(), Error> {
        let plan = self.scenario.host.get(name).cloned().unwrap_or_default();
        plan.services.iter().chain(plan.tund.keys()).try_for_each(|what| self.start(name, what))
    }

    /// Finds a program that has ended; returns its output.
    pub fn ended(&mut self) -> Option<String> {
        self.running.iter_mut().find_map(|((on, what), running)| {
            let status = running.process.wait(Duration::ZERO).ok()?;
            Some(format!("{what} on {on} has ended: {status}: {}", running.process.text()))
        })
    }

    fn make_keys(&self) -> Result<(), Error> {
        for (file, owners) in &self.scenario.keys {
            let mut made: Option<PathBuf> = None;
            for owner in owners {
                let owner = self.host(owner.get_ref())?;
                let path = owner.dir().join(file);
                match &made {
                    None => owner.run(&format!("{} genkey -o {}", self.tund.display(), path.display()))?,
                    Some(first) => fs::copy(first, &path).map(|_| String::new()).at(path.display())?,
                };
                made = Some(path);
            }
        }
        Ok(())
    }

    fn prepare(&self, name: &str, plan: &super::Host) -> Result<(), Error> {
        let host = self.host(name)?;
        if plan.forward {
            host.sysctl("net/ipv4/ip_forward", "1")?;
        }
        for (name, address) in &plan.names {
            host.add_name(address, name)?;
        }
        for (file, text) in &plan.files {
            let text = self.filled(host, text);
            if text.starts_with("#!") {
                write_script(&host.dir().join(file), &text)?;
            } else {
                host.file(file, &text)?;
            }
        }
        if !plan.setup.is_empty() {
            self.shell(name, &format!("set -e\n{}", plan.setup))?;
        }
        Ok(())
    }

    /// Fills in `@TUND@` (the daemon's program) and `@DIR@` (the host's).
    fn filled(&self, host: &Host, text: &str) -> String {
        let [tund, dir] = [self.tund.as_path(), host.dir()].map(|path| path.display().to_string());
        text.replace("@TUND@", &tund).replace("@DIR@", &dir)
    }

    /// A script to run in the host's directory.
    fn within(&self, host: &Host, script: &str) -> String {
        format!("cd {}\n{}", host.dir().display(), self.filled(host, script))
    }

    /// Runs a shell script in a host's directory; returns its output.
    pub fn shell(&self, on: &str, script: &str) -> Result<String, Error> {
        let host = self.host(on)?;
        host.shell(&self.within(host, script))
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>, Error> {
        host(&self.hosts, name)
    }

    /// The names of the hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Has every end of a link started from now on log its keys to this folder, except those that a superserver starts. Returns the future files.
    pub fn log_keys(&mut self, folder: &Path) -> Vec<PathBuf> {
        self.key_logs = Some(folder.to_owned());
        let hosts = self.scenario.host.iter();
        hosts.flat_map(|(on, plan)| plan.tund.keys().map(move |what| key_log(folder, on, what))).collect()
    }

    /// The phases.
    pub fn phases(&self) -> Vec<Phase> {
        self.scenario.phase.clone()
    }

    /// Runs a phase; calls `say` for each check that holds, with the measurement. The first that does not is an error with the logs of all links.
    pub fn run(&mut self, phase: &Phase, mut say: impl FnMut(&Check, Option<Measured>)) -> Result<(), Error> {
        for step in &phase.step {
            self.step(step).map_err(|error| self.with_logs(&phase.say, &error))?;
        }
        for check in &phase.check {
            let measured = self.check(check).map_err(|error| self.with_logs(&check.say, &error))?;
            say(check, measured);
        }
        for ((on, _), running) in &mut self.running {
            let lines = running.unheard();
            running.mark += lines.len();
            if running.is_link {
                self.said.extend(lines.into_iter().map(|line| (on.clone(), line)));
            }
        }
        Ok(())
    }

    /// The hosts and lines that links logged before the end of the last phase, since the last call.
    pub fn said(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.said)
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let Step { on, run, stop, kill, start } = step;
        let on = on.get_ref();
        if let Some(script) = run {
            self.shell(on, script)?;
        }
        if let Some(what) = stop {
            let mut running = self.take(on, what)?;
            let code = running.process.terminate(GOING)?;
            let lines = running.unheard();
            if running.is_link && code != 0 {
                return Err(Error::new(format!("{on}: {what} ended with code {code}: {}", lines.join("\n"))));
            }
            self.said.extend(lines.into_iter().map(|line| (on.clone(), line)));
        }
        if let Some(what) = kill {
            drop(self.take(on, what)?);
        }
        if let Some(what) = start {
            self.start(on, what)?;
        }
        Ok(())
    }

    fn take(&mut self, on: &str, what: &str) -> Result<Running, Error> {
        let key = (on.to_owned(), what.to_owned());
        self.running.remove(&key).ok_or_else(|| Error::new(format!("{on}: {what} does not run")))
    }

    fn start(&mut self, on: &str, what: &str) -> Result<(), Error> {
        let plan = self.scenario.host.get(on).and_then(|plan| plan.tund.get(what));
        let is_link = plan.is_some();
        let process = match plan {
            Some(text) => {
                let host = self.host(on)?;
                // A step's change of the file is kept.
                let file = host.dir().join(format!("{what}.toml"));
                if !file.exists() {
                    host.file(&format!("{what}.toml"), text.get_ref())?;
                }
                let mut arguments = vec!["--verb", "3"];
                let log =
                    self.key_logs.as_ref().map(|folder| key_log(folder, on, what).display().to_string());
                arguments.extend(log.iter().flat_map(|log| ["--key-log", log]));
                host.tund(&self.tund, &file, &arguments)?
            }
            None => {
                let host = self.host(on)?;
                let mut command = host.command("sh");
                command.arg("-c").arg(self.within(host, &format!("exec {what}")));
                Process::spawn(format!("{on}: {what}"), command)?
            }
        };
        self.running.insert((on.to_owned(), what.to_owned()), Running { process, is_link, mark: 0 });
        Ok(())
    }

    /// Retries a check until it holds.
    fn check(&self, check: &Check) -> Result<Option<Measured>, Error> {
        let deadline = Instant::now() + SOON;
        let mut failures = 0;
        loop {
            let Look { held, seen, measured } = self.look(check)?;
            failures = if held && check.fails { failures + 1 } else { 0 };
            if held && (!check.fails || failures == 2) {
                return Ok(measured);
            }
            if Instant::now() > deadline {
                let asked =
                    check.run.as_deref().unwrap_or(if check.log.is_some() { "its log" } else { "measured" });
                return Err(Error::new(format!("{}: {asked}: {seen}", check.on.get_ref())));
            }
            thread::sleep(PAUSE);
        }
    }

    /// Whether it holds now, and the output.
    fn look(&self, check: &Check) -> Result<Look, Error> {
        let on = check.on.get_ref();
        let shows = |text: &str| check.shows.as_deref().is_none_or(|part| text.contains(part));
        match check.way().map_err(|mistake| Error::new(mistake.text))? {
            Way::Log(end) => {
                let Some(running) = self.running.get(&(on.clone(), end.clone())) else {
                    return Err(Error::new(format!("{on}: {end} does not run")));
                };
                let text = running.unheard().join("\n");
                Ok(Look { held: shows(&text), seen: text, measured: None })
            }
            Way::Measure(figure, bound) => self.measure(check, figure, &bound),
            Way::Script => {
                let (succeeded, text) = self.script(on, check)?;
                Ok(Look { held: succeeded != check.fails && shows(&text), seen: text, measured: None })
            }
        }
    }

    /// Runs a check's script; returns whether it succeeded, and its output.
    fn script(&self, on: &str, check: &Check) -> Result<(bool, String), Error> {
        let host = self.host(on)?;
        let mut command = host.command("sh");
        command.arg("-c").arg(self.within(host, check.run.as_deref().unwrap_or_default()));
        let mut process = Process::spawn(format!("{on}: check"), command)?;
        let succeeded = process.wait(SCRIPT).is_ok_and(|status| status.success());
        Ok((succeeded, process.text()))
    }

    fn measure(&self, check: &Check, figure: Figure, bound: &Bound) -> Result<Look, Error> {
        let value = if figure == Figure::SeenOnWire {
            Some(self.count(check)?)
        } else {
            let to = target(check.to.as_ref().map_or("", |to| to.get_ref()))?;
            measure::measure(
                figure,
                self.host(check.on.get_ref())?,
                to,
                self.hosts.values().map(Arc::as_ref),
            )?
        };
        let measured = bound.compare(value);
        Ok(Look { held: measured.holds, seen: measured.to_string(), measured: Some(measured) })
    }

    /// Packets on an interface while the check's script runs, whether that succeeds or not.
    fn count(&self, check: &Check) -> Result<f64, Error> {
        let at = check.at.as_ref().map_or("", |at| at.get_ref());
        let (host, interface) =
            plug(at).ok_or_else(|| Error::new(format!("{at:?} is not HOST:INTERFACE")))?;
        let host = self.host(host)?;
        let mut words = vec!["tcpdump", "-n", "--immediate-mode", "-i", interface];
        words.extend(check.filter.split_whitespace());
        rights::require("tcpdump")?;
        let mut recorder = host.spawn(&words)?;
        recorder.wait_line("listening on", measure::PATIENCE)?;
        self.script(check.on.get_ref(), check)?;
        // Packets in flight arrive.
        thread::sleep(PAUSE);
        recorder.terminate(measure::PATIENCE)?;
        captured(recorder.lines().iter().map(String::as_str))
    }

    /// Describes an error, with the logs of all links and services.
    pub fn with_logs(&self, what: &str, error: &Error) -> Error {
        let mut text = format!("{what}: {error}");
        for ((on, what), running) in &self.running {
            text += &format!("\n--- {what} on {on}\n{}", running.process.text());
        }
        Error::new(text)
    }

    /// A command to run in a host's directory, with tund's program on the path.
    pub fn command(&self, on: &str, program: &str) -> Result<Command, Error> {
        let host = self.host(on)?;
        let mut command = host.command("sh");
        command.arg("-c").arg(self.within(host, &format!("exec {program}")));
        Ok(command)
    }
}

impl Running {
    /// Its output since the end of the last phase.
    fn unheard(&self) -> Vec<String> {
        self.process.lines().split_off(self.mark)
    }
}

/// Where the end of a link logs its keys.
fn key_log(folder: &Path, on: &str, what: &str) -> PathBuf {
    folder.join(format!("{on}-{what}.keys"))
}

fn host<'a>(hosts: &'a BTreeMap<String, Arc<Host>>, name: &str) -> Result<&'a Arc<Host>, Error> {
    hosts.get(name).ok_or_else(|| Error::new(format!("there is no host {name}")))
}
