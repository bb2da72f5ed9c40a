//! `run` and `list`: scenarios for people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tund_lab::guest::Guest;
use tund_lab::scenario::{ALL, Capture, Entry, Ground, World, find};
use tund_lab::{Error, Net, rights};

use crate::link;

/// What `run` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// One of those that `list` shows
    name: String,
    /// Once everything works, open a shell on this host; leaving it ends the scenario
    #[arg(long, value_name = "HOST")]
    shell: Option<String>,
    /// Record what crosses the interfaces of every host, outside and inside the link: DIR/HOST.pcapng; and the keys
    /// of the links, for the dissector
    #[arg(long, value_name = "DIR")]
    capture: Option<PathBuf>,
}

/// How long a scenario may take in a guest.
const IN_GUEST: Duration = Duration::from_secs(600);

/// Plays a scenario, saying what happens; in a guest if this kernel does not have what it needs. Returns the exit code.
pub fn run(options: &Options) -> Result<u8, Error> {
    rights::become_root()?;
    rights::check_namespaces()?;
    let entry = find(&options.name)?;
    match entry.ground()? {
        Ground::Here => play(entry, options).map(|()| 0),
        Ground::Guest(lacks) => {
            println!("{lacks}: a user-mode guest is started");
            in_guest(options)
        }
        Ground::Nowhere(missing) => Err(Error::new(missing.join("; "))),
    }
}

/// The same command there.
fn in_guest(options: &Options) -> Result<u8, Error> {
    let mut guest = Guest::again()?;
    if let Some(folder) = &options.capture {
        guest = guest.share(folder)?;
    }
    let guest = if options.shell.is_some() { guest.with_terminal() } else { guest.limit(IN_GUEST) };
    guest.run()
}

fn play(entry: &Entry, options: &Options) -> Result<(), Error> {
    rights::check_tun()?;
    let scenario = entry.scenario()?;
    println!("{}\n\n{}\n", scenario.title, drawing(entry.page));
    let place = Net::new()?;
    let tund = link::program(&place)?;
    let mut world = World::new(scenario, &tund)?;
    let capture = options.capture.as_deref().map(|folder| Capture::start(&mut world, folder)).transpose()?;
    if let (Some(capture), Some(host)) = (&capture, world.hosts().next()) {
        println!("recording; to look at {host}'s, and likewise at the others':\n{}\n", capture.viewer(host));
    }
    world.start_all()?;
    for phase in world.phases() {
        println!("{}{}", if phase.failure { "What breaks: " } else { "" }, phase.say);
        world.run(&phase, |check| println!("  ok  {}", check.say))?;
        if let Some(host) = &options.shell {
            return shell(&world, host, &tund);
        }
    }
    drop(capture);
    drop(world);
    println!("hosts and files removed");
    Ok(())
}

/// The first block of text of a page.
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
        "\na shell on {host}, in the directory of its files; `exit` ends the scenario. Hosts: {}",
        hosts.join(", ")
    );
    let mut command = world.command(host, "${SHELL:-sh}")?;
    let folder = tund.parent().unwrap_or(Path::new("/"));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).env("PS1", format!("{host}# "));
    command.status().map_err(|error| Error::new(format!("no shell: {error}")))?;
    Ok(())
}

/// Every scenario, and whether it can run here. With a file of needs, one that cannot run must be in it.
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

/// Each of them must be in the file, with a reason.
fn excuse(cannot: &[&Entry], file: &Path) -> Result<(), Error> {
    let place = |error: &dyn std::fmt::Display| Error::new(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| place(&error))?;
    let known: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| place(&error))?;
    let unknown: Vec<&str> =
        cannot.iter().map(|entry| entry.name).filter(|name| !known.contains_key(*name)).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(place(&format!("nothing says why these cannot run here: {}", unknown.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_the_first_block_of_a_page() {
        assert_eq!(drawing("# T\n\n```text\n a -- b\n```\n\nmore\n```text\nx\n```\n"), " a -- b");
        assert!(ALL.iter().all(|entry| drawing(entry.page).lines().count() > 2));
    }

    #[test]
    fn what_cannot_run_needs_a_reason_in_the_file() {
        let dir = std::env::temp_dir().join(format!("tund-lab-needs-{}", std::process::id()));
        std::fs::write(&dir, "").unwrap();
        let [first, ..] = &ALL;
        assert!(excuse(&[], &dir).is_ok());
        assert!(excuse(&[first], &dir).unwrap_err().to_string().contains(first.name));
        std::fs::write(&dir, format!("{} = 'the kernel has none'", first.name)).unwrap();
        assert!(excuse(&[first], &dir).is_ok());
        std::fs::remove_file(&dir).unwrap();
    }
}
