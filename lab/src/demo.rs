//! The demonstration: a link between two hosts, from nothing to nothing. It is a scenario with the files of `examples`.

use tund_lab::Error;
use tund_lab::scenario::Entry;

use crate::story;

/// Which link is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Routed.
    Tun,
    /// Bridged.
    Tap,
}

macro_rules! examples {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../examples/", $name)))),*]
    };
}

/// What a scenario contains instead of `<examples/NAME>`.
const EXAMPLES: [(&str, &str); 5] = examples![
    "tun-fri-mon.toml",
    "tun-mon-fri.toml",
    "tap-fri-mon.toml",
    "tap-mon-fri.toml",
    "tap-server-ip.up"
];

/// Shows the link; an error says which part failed. Returns the exit code.
pub fn run(mode: Mode) -> Result<u8, Error> {
    story::play(&entry(mode), &story::Options::with_logs())
}

fn entry(mode: Mode) -> Entry {
    let (name, text) = match mode {
        Mode::Tun => ("tun", include_str!("../demo/tun.toml")),
        Mode::Tap => ("tap", include_str!("../demo/tap.toml")),
    };
    let fill =
        |text: String, (name, example): (&str, &str)| text.replace(&format!("<examples/{name}>\n"), example);
    let mut entry = Entry::new(name, EXAMPLES.into_iter().fold(text.to_owned(), fill));
    let example = |end: &str| {
        let file = format!("{name}-{end}.toml");
        let text = EXAMPLES.iter().find(|(name, _)| *name == file).map_or("", |(_, text)| text);
        (file, text)
    };
    let key = "The key, made once and copied to both:   tund genkey -o static.key";
    let shown = side_by_side(example("fri-mon"), example("mon-fri"));
    entry.page = format!("{}\n\n{key}\n\n{shown}\n```", entry.page.trim_end_matches("\n```")).into();
    entry
}

/// Two files without their comments.
fn side_by_side((fri, left): (String, &str), (mon, right): (String, &str)) -> String {
    let lines = |title: String, text: &str| -> Vec<String> {
        let meant = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let bare = |line: &str| line.split("  #").next().unwrap_or(line).trim_end().to_owned();
        std::iter::once(title).chain(text.lines().filter(meant).map(bare)).collect()
    };
    let (left, right) = (lines(format!("# {fri} on fri"), left), lines(format!("# {mon} on mon"), right));
    let line = |side: &[String], at| side.get(at).cloned().unwrap_or_default();
    let rows = (0..left.len().max(right.len()))
        .map(|at| format!("    {:<36}{}", line(&left, at), line(&right, at)).trim_end().to_owned());
    rows.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_sound_and_show_the_files_of_examples() {
        for mode in [Mode::Tun, Mode::Tap] {
            let entry = entry(mode);
            let scenario = entry.scenario().unwrap();
            scenario.verify().unwrap();
            assert!(!entry.text.contains("<examples"), "{}", entry.text);
            assert!(entry.page.contains("(Internet)") && entry.page.contains("[device]"), "{}", entry.page);
        }
    }
}
