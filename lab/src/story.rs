//! `run` and `list`: scenarios for people.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tund_lab::guest::Guest;
use tund_lab::scenario::{ALL, Capture, EXAMPLE, Entry, Ground, World, find};
use tund_lab::{At, Error, Net, rights, write_script};

use crate::link;
use crate::outcome::{Held, Outcome, Played};

/// What `run` can be told.
#[derive(Debug, Default, clap::Args)]
pub struct Options {
    /// A scenario that `list` shows, or FILE.toml: see docs/scenario.5.md
    name: String,
    /// Print the result as a JSON object, and nothing else
    #[arg(long, conflicts_with = "shell")]
    json: bool,
    /// Write the result as an HTML page, with the drawing and plots of what was measured
    #[arg(long, value_name = "FILE.html", conflicts_with = "shell")]
    page: Option<PathBuf>,
    /// Show the logs of all links
    #[arg(long, conflicts_with = "json")]
    logs: bool,
    /// Set a variable of the scenario, overriding its value in the file
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    vars: Vec<(String, String)>,
    /// Once everything works, open a shell on this host; leaving it ends the scenario
    #[arg(long, value_name = "HOST")]
    shell: Option<String>,
    /// Record all interfaces of every host, outside and inside the link, in DIR/HOST.pcapng, and the keys of the links
    /// for the dissector
    #[arg(long, value_name = "DIR")]
    capture: Option<PathBuf>,
}

impl Options {
    /// Defaults, with what each link logs.
    pub fn with_logs() -> Self {
        Self { logs: true, ..Self::default() }
    }

    /// Only a shell on that host, if any.
    pub fn with_shell(shell: Option<String>) -> Self {
        Self { shell, ..Self::default() }
    }
}

/// Time limit of a scenario in a guest.
const IN_GUEST: Duration = Duration::from_secs(600);

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Plays the scenario of that name. Returns the exit code.
pub fn run(options: &Options) -> Result<u8, Error> {
    let mut entry = find(&options.name)?.into_owned();
    entry.vars = options.vars.iter().cloned().collect();
    play(&entry, options)
}

/// Plays a scenario and describes it; in a guest if this kernel lacks something. Returns the exit code.
pub fn play(entry: &Entry, options: &Options) -> Result<u8, Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    match entry.ground()? {
        Ground::Here => play_here(entry, options),
        Ground::Guest(lacks) => {
            if !options.json {
                println!("{lacks}: a user-mode guest is started");
            }
            in_guest(options)
        }
        Ground::Nowhere(missing) => Err(Error::new(missing.join("; "))),
    }
}

/// Runs the same command in a guest.
fn in_guest(options: &Options) -> Result<u8, Error> {
    let mut guest = Guest::again()?;
    if let Some(folder) = &options.capture {
        guest = guest.share(folder)?;
    }
    if let Some(folder) = options.page.as_deref().and_then(Path::parent) {
        guest = guest.share(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
    }
    let guest = if options.shell.is_some() { guest.with_terminal() } else { guest.limit(IN_GUEST) };
    guest.run()
}

fn play_here(entry: &Entry, options: &Options) -> Result<u8, Error> {
    let mut phases = Vec::new();
    let result = told(entry, options, &mut phases);
    let error = result.as_ref().err().map(ToString::to_string);
    let outcome = Outcome { scenario: entry.name.to_string(), passed: error.is_none(), phases, error };
    if let Some(file) = &options.page {
        let title = entry.scenario()?.title;
        fs::write(file, outcome.page(&title, drawing(&entry.page))).at(file.display())?;
    }
    if !options.json {
        return result.map(|()| 0);
    }
    println!("{}", serde_json::to_string_pretty(&outcome).at("the result")?);
    Ok(u8::from(!outcome.passed))
}

fn told(entry: &Entry, options: &Options, phases: &mut Vec<Played>) -> Result<(), Error> {
    let say = |text: String| {
        if !options.json {
            println!("{text}")
        }
    };
    rights::check_tun()?;
    sound(entry)?;
    let scenario = entry.scenario()?;
    say(format!("{}\n\n{}\n", scenario.title, drawing(&entry.page)));
    let place = Net::new()?;
    let tund = link::program(&place)?;
    let mut world = World::new(scenario, &tund)?;
    let capture = options.capture.as_deref().map(|folder| Capture::start(&mut world, folder)).transpose()?;
    if let (Some(capture), Some(host)) = (&capture, world.hosts().next()) {
        say(format!(
            "recording; to look at {host}'s, and likewise at the others':\n{}\n",
            capture.viewer(host)
        ));
    }
    world.start_all()?;
    for phase in world.phases() {
        say(format!("{}{}", if phase.failure { "What breaks: " } else { "" }, phase.say));
        let (mut begin, mut checks) = (Instant::now(), Vec::new());
        let result = world.run(&phase, |check, measured| {
            let figure = measured.as_ref().map_or_else(String::new, |measured| format!(": {measured}"));
            say(format!("  ok  {}{figure}", check.say));
            let seconds = std::mem::replace(&mut begin, Instant::now()).elapsed().as_secs_f64();
            checks.push(Held { say: check.say.clone(), on: check.on.get_ref().clone(), seconds, measured });
        });
        phases.push(Played { say: phase.say.clone(), failure: phase.failure, checks });
        result?;
        let said = world.said();
        said.iter().filter(|_| options.logs).filter_map(logged).for_each(&say);
        if let Some(host) = &options.shell {
            return shell(&world, host, &tund);
        }
    }
    drop(capture);
    drop(world);
    drop(place);
    let own = format!("tund-lab-{}-", std::process::id());
    let left = fs::read_dir(std::env::temp_dir()).at("the directory of temporary files")?.flatten();
    if let Some(left) = left.map(|entry| entry.path()).find(|path| path.display().to_string().contains(&own))
    {
        return Err(Error::new(format!("{} is left", left.display())));
    }
    say("hosts and files removed: nothing is left".to_owned());
    Ok(())
}

/// A line of a link's log without its date; `None` if uninteresting. Notes on the file have no date.
fn logged((on, line): &(String, String)) -> Option<String> {
    const DATE: usize = "2026-01-01 00:00:00 ".len();
    const PLAIN: [&str; 5] = ["net.core.", "swap space", "ip link set", "[no-remote]", "SIGTERM"];
    let text = line.get(DATE..).filter(|_| line.get(4..5) == Some("-"))?;
    (!PLAIN.iter().any(|part| text.contains(part))).then(|| format!("      {on}  {text}"))
}

/// Shows every mistake of a scenario with its place.
fn sound(entry: &Entry) -> Result<(), Error> {
    let source = entry.source()?;
    let mistakes = source.scenario()?.mistakes();
    if mistakes.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = mistakes.iter().map(|mistake| source.render(mistake)).collect();
    Err(Error::new(shown.join("\n")))
}

/// Reads a scenario and checks it; nothing is built.
pub fn check(file: &Path) -> Result<(), Error> {
    sound(&Entry::read(file)?)?;
    println!("{}: sound", file.display());
    Ok(())
}

/// Writes a small example scenario to a new file.
pub fn new(file: &Path) -> Result<(), Error> {
    let mut created = File::create_new(file).at(file.display())?;
    created.write_all(EXAMPLE.as_bytes()).at(file.display())?;
    println!("{0}: run it with `tund-lab run {0}`", file.display());
    Ok(())
}

/// The first text block of a page.
fn drawing(page: &str) -> &str {
    let after = page.split_once("```text\n").map_or("", |(_, after)| after);
    after.split("\n```").next().unwrap_or_default()
}

fn shell(world: &World, host: &str, tund: &Path) -> Result<(), Error> {
    let hosts: Vec<&str> = world.hosts().collect();
    if !hosts.contains(&host) {
        return Err(Error::new(format!("no host {host} here: there are {}", hosts.join(", "))));
    }
    println!(
        "\na shell on {host}, in the directory of its files; `exit` ends the scenario. `on HOST COMMAND` runs one elsewhere: {}",
        hosts.join(", ")
    );
    let mut command = world.command(host, "${SHELL:-sh}")?;
    let folder = tund.parent().unwrap_or(Path::new("/"));
    write_on(world, &folder.join("on"))?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).env("PS1", format!("{host}# "));
    command.status().map_err(|error| Error::new(format!("no shell: {error}")))?;
    Ok(())
}

/// Writes a program that runs a command on another host of the world.
fn write_on(world: &World, file: &Path) -> Result<(), Error> {
    let mut text = String::from("#!/bin/sh\nhost=$1; shift\ncase $host in\n");
    for name in world.hosts() {
        let host = world.host(name)?;
        text += &format!(
            "{name}) exec nsenter --target {} --net --mount --wd={} -- \"$@\" ;;\n",
            host.pid(),
            host.dir().display()
        );
    }
    text += "*) echo \"no host $host\" >&2; exit 1 ;;\nesac\n";
    write_script(file, &text)
}

/// Lists scenarios, and whether they can run here. With a file of needs, those that cannot must be in it.
pub fn list(needs: Option<&Path>) -> Result<(), Error> {
    rights::become_root()?;
    let mut cannot = Vec::new();
    for entry in &ALL {
        let state = match entry.ground()? {
            Ground::Here => "RUN".to_owned(),
            Ground::Guest(_) => "RUN (in a user-mode guest)".to_owned(),
            Ground::Nowhere(missing) => {
                cannot.push(entry);
                format!("CANNOT ({})", missing.join("; "))
            }
        };
        println!("{:<18} {state:<6} {}", entry.name, entry.scenario()?.title);
    }
    needs.map_or(Ok(()), |file| excuse(&cannot, file))
}

/// Checks that each of them is in the file, with a reason.
fn excuse(cannot: &[&Entry], file: &Path) -> Result<(), Error> {
    let place = |error: &dyn std::fmt::Display| Error::new(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| place(&error))?;
    let known: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| place(&error))?;
    let unknown: Vec<&str> =
        cannot.iter().map(|entry| &*entry.name).filter(|name| !known.contains_key(*name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(place(&format!("nothing says why these cannot run here: {}", unknown.join(", "))))
}

#[cfg(test)]
mod tests {
    use tund_lab::Scratch;

    use super::*;

    #[test]
    fn the_drawing_is_the_first_block_of_a_page() {
        assert_eq!(drawing("# T\n\n```text\n a -- b\n```\n\nmore\n```text\nx\n```\n"), " a -- b");
        assert!(ALL.iter().all(|entry| drawing(&entry.page).lines().count() > 2));
    }

    #[test]
    fn what_cannot_run_needs_a_reason_in_the_file() {
        let scratch = Scratch::new().unwrap();
        let file = scratch.file("needs.toml", "").unwrap();
        let [first, ..] = &ALL;
        assert!(excuse(&[], &file).is_ok());
        assert!(excuse(&[first], &file).unwrap_err().to_string().contains(&*first.name));
        scratch.file("needs.toml", format!("{} = 'the kernel has none'", first.name)).unwrap();
        assert!(excuse(&[first], &file).is_ok());
    }
}
