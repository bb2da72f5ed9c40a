//! Asks for a link, one item at a time.

use std::io::{BufRead, Write};
use std::net::IpAddr;

use super::plan::{End, Inside, Link, TapEnd, addresses, host_name, outer_of};
use crate::config::DEFAULT_PORT;
use crate::report::exit::{FAILED, Fatal, USAGE};

/// Example addresses, for those who have none in mind.
const SUGGESTED: [&str; 2] = ["192.168.86.81", "192.168.86.18"];

/// Asks for a link; `own` is this host's name.
///
/// # Errors
/// The input ends, or the answers together make no valid link.
pub fn link(own: &str, input: &mut impl BufRead, output: &mut impl Write) -> Result<Link, Fatal> {
    let own = own.split('.').next().unwrap_or_default();
    let mut dialogue = Dialogue { input, output };
    let names = [
        dialogue.ask("Name of this host", own, host_name)?,
        dialogue.ask("Name of the other host", "", host_name)?,
    ];
    let mut places = [None, None];
    for end in [1, 0] {
        let question = format!(
            "Where {} finds {}: address or name, :PORT unless it is {DEFAULT_PORT}, empty if nowhere",
            names[1 - end],
            names[end]
        );
        places[end] = dialogue.ask(&question, "", |text| match text {
            "" => Ok(None),
            text => outer_of(text).map(Some),
        })?;
    }
    let routed = dialogue.ask("tun (routed) or tap (bridged)", "tun", |text| match text {
        "tun" => Ok(true),
        "tap" => Ok(false),
        _ => Err("answer tun or tap".to_owned()),
    })?;
    let inside = if routed { dialogue.tun(&names)? } else { dialogue.tap(&names)? };
    let ([here, there], [own, other]) = (names, places);
    let ends = [End { name: here, outer: own }, End { name: there, outer: other }];
    Link::new(ends, inside, Vec::new(), false, None).map_err(|why| Fatal::new(USAGE, why))
}

struct Dialogue<'a, I, O> {
    input: &'a mut I,
    output: &'a mut O,
}

impl<I: BufRead, O: Write> Dialogue<'_, I, O> {
    /// Asks until the answer is valid.
    fn ask<T>(
        &mut self,
        question: &str,
        default: &str,
        take: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Fatal> {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        loop {
            let mut line = String::new();
            let read = write!(self.output, "{question}{shown}: ").and_then(|()| self.output.flush());
            if !matches!(read.and_then(|()| self.input.read_line(&mut line)), Ok(1..)) {
                return Err(Fatal::new(FAILED, "the answers ended before the link was complete"));
            }
            let line = line.trim();
            match take(if line.is_empty() { default } else { line }) {
                Ok(taken) => return Ok(taken),
                // The question is repeated in any case.
                Err(why) => drop(writeln!(self.output, "{why}")),
            }
        }
    }

    fn tun(&mut self, [here, there]: &[String; 2]) -> Result<Inside, Fatal> {
        let address =
            |text: &str| text.parse::<IpAddr>().map_err(|_| format!("{text:?} is not an IP address"));
        let own = self.ask(&format!("Address of {here} inside the tunnel"), SUGGESTED[0], address)?;
        let question = format!("Address of {there} inside the tunnel");
        self.ask(&question, SUGGESTED[1], |text| addresses(&format!("{own},{text}")))
    }

    fn tap(&mut self, [here, there]: &[String; 2]) -> Result<Inside, Fatal> {
        let question = |name| format!("Bridge that {name} joins, or address with prefix of {name}");
        let own = self.ask(&question(here), "br0", str::parse::<TapEnd>)?;
        Ok(Inside::Tap([own, self.ask(&question(there), "br0", str::parse)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answers: &str) -> (Result<Link, Fatal>, String) {
        let mut output = Vec::new();
        let link = link("fri.example", &mut answers.as_bytes(), &mut output);
        (link, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_defaults_make_the_link_of_the_readme() {
        let (link, asked) = answered("\nmon\nmon.tn:1417\n\n\n\n\n");
        let expected = [End { name: "fri".into(), outer: None }, "mon=mon.tn:1417".parse().unwrap()];
        let inside = super::super::plan::addresses("192.168.86.81,192.168.86.18").unwrap();
        assert_eq!(link.unwrap(), Link::new(expected, inside, vec![], false, None).unwrap());
        assert!(asked.starts_with("Name of this host [fri]: "), "{asked}");
    }

    #[test]
    fn what_cannot_be_taken_is_asked_for_again_and_an_end_ends() {
        let (link, asked) =
            answered("a b\nfri\nmon\nmon.tn:0\nmon.tn\n\nbridge\ntap\n10.0.0.1\n10.0.0.1/24\n\n");
        let inside =
            Inside::Tap([TapEnd::Address("10.0.0.1/24".parse().unwrap()), TapEnd::Bridge("br0".into())]);
        assert_eq!(link.unwrap().inside, inside);
        for part in ["letters, digits", "is not a port", "answer tun or tap", "10.0.0.1/24"] {
            assert!(asked.contains(part), "{part} is not in {asked}");
        }
        assert_eq!(answered("fri\nmon\n").0.unwrap_err().code, FAILED);
        assert_eq!(answered("\nmon\n\n\n\n\n\n").0.unwrap_err().code, USAGE);
    }
}
