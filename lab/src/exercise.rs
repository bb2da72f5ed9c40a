//! `exercise`: networks with a fault, and a question; the solution is behind an option.

use tund_lab::Error;
use tund_lab::scenario::{EXERCISES, Entry};

use crate::story;

/// What it can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The exercise; without it, list all
    name: Option<String>,
    /// Open the shell on this host instead of the first; `on HOST COMMAND` reaches the others
    #[arg(long, value_name = "HOST", conflicts_with = "solution")]
    shell: Option<String>,
    /// Explain the solution, and carry it out
    #[arg(long, requires = "name")]
    solution: bool,
}

/// Lists them, or builds one and opens a shell in it. Returns the exit code.
pub fn run(options: Options) -> Result<u8, Error> {
    let Some(name) = &options.name else {
        for entry in &EXERCISES {
            println!("{:<10} {}", entry.name, entry.scenario()?.title);
        }
        return Ok(0);
    };
    let names = || EXERCISES.iter().map(|entry| &*entry.name).collect::<Vec<_>>().join(", ");
    let found = EXERCISES.iter().find(|entry| entry.name == *name);
    let entry = found.ok_or_else(|| Error::new(format!("no exercise {name}: there are {}", names())))?;
    let (question, solution) = parts(entry);
    if options.solution {
        println!("{solution}\n");
        return story::play(entry, &story::Options::with_shell(None));
    }
    println!("{question}\n\nWhen you have it, or give up: tund-lab exercise {name} --solution\n");
    let first = || entry.scenario().map(|scenario| scenario.host.into_keys().next());
    let shell = options.shell.map_or_else(first, |host| Ok(Some(host)))?;
    story::play(entry, &story::Options::with_shell(shell))
}

/// Splits a page into question and solution.
fn parts(entry: &Entry) -> (&str, &str) {
    let (question, solution) = entry.page.split_once("\n## Solution\n").unwrap_or((&entry.page, ""));
    (question.trim(), solution.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exercise_asks_and_keeps_its_solution_behind_an_option() {
        for entry in &EXERCISES {
            let (question, solution) = parts(entry);
            assert!(
                question.contains("\n1. ") && question.contains("```text"),
                "{}: no question",
                entry.name
            );
            assert!(solution.len() > 500, "{}: no solution", entry.name);
        }
    }
}
