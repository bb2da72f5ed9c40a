//! Events of links: the differences between successive statuses.

use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;

use serde::Serialize;

use super::api::{State, Status};

/// Something that happened to a link: a line of `tund events`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// When it happened, in seconds since the Unix epoch; for `begins`, when the condition began.
    pub time: u64,
    /// The link's name.
    pub link: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The link runs: it was there at the first poll, or has been started.
    Runs {
        /// Its process ID.
        pid: u32,
        /// Its state.
        state: State,
    },
    /// The link changed its state.
    State {
        /// The previous state.
        before: State,
        /// The new state.
        state: State,
    },
    /// A condition begins.
    Begins {
        /// Its stable code: see tund(8), Conditions.
        code: String,
        /// One line with the remedy.
        text: String,
    },
    /// A condition ends.
    Ends {
        /// Its code.
        code: String,
    },
    /// The link runs, but has stopped answering.
    Silent {
        /// Why.
        reason: String,
    },
    /// The link answers again.
    Answers,
    /// The link has stopped.
    Gone,
}

/// A link's last status.
struct Known {
    status: Status,
    silent: bool,
}

/// The known links, by name and process.
#[derive(Default)]
pub struct Watcher(BTreeMap<(String, u32), Known>);

impl Watcher {
    /// Takes the links' answers at `now`, in seconds since the Unix epoch, and the links that did not answer, each with the reason. Returns the
    /// events since the last call.
    pub fn look(&mut self, now: u64, links: Vec<Status>, silent: &[(String, String)]) -> Vec<Event> {
        let mut events = Vec::new();
        let there: Vec<_> = links.iter().map(|link| (link.name.clone(), link.pid)).collect();
        for (status, key) in links.into_iter().zip(&there) {
            let tell = |time, what| events.push(Event { time, link: key.0.clone(), what });
            match self.0.entry(key.clone()) {
                Entry::Vacant(place) => {
                    place.insert(Known { status: appear(status, tell), silent: false });
                }
                Entry::Occupied(mut place) => place.get_mut().change(now, status, tell),
            }
        }
        self.0.retain(|key, known| {
            let tell = |what| Event { time: now, link: key.0.clone(), what };
            if there.contains(key) {
                return true;
            }
            let Some((_, reason)) = silent.iter().find(|(name, _)| *name == key.0) else {
                events.push(tell(What::Gone));
                return false;
            };
            if !std::mem::replace(&mut known.silent, true) {
                events.push(tell(What::Silent { reason: reason.clone() }));
            }
            true
        });
        events
    }
}

fn appear(status: Status, mut tell: impl FnMut(u64, What)) -> Status {
    tell(status.since, What::Runs { pid: status.pid, state: status.state });
    for trouble in &status.problems {
        tell(trouble.since, What::Begins { code: trouble.code.clone(), text: trouble.text.clone() });
    }
    status
}

impl Known {
    fn change(&mut self, now: u64, status: Status, mut tell: impl FnMut(u64, What)) {
        if std::mem::take(&mut self.silent) {
            tell(now, What::Answers);
        }
        let before = std::mem::replace(&mut self.status, status);
        let is_in = |status: &Status, code: &str| status.problems.iter().any(|other| other.code == code);
        for trouble in before.problems.iter().filter(|trouble| !is_in(&self.status, &trouble.code)) {
            tell(now, What::Ends { code: trouble.code.clone() });
        }
        if before.state != self.status.state {
            tell(self.status.since, What::State { before: before.state, state: self.status.state });
        }
        for trouble in self.status.problems.iter().filter(|trouble| !is_in(&before, &trouble.code)) {
            tell(trouble.since, What::Begins { code: trouble.code.clone(), text: trouble.text.clone() });
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.link)?;
        match &self.what {
            What::Runs { pid, state } => write!(f, "runs as process {pid}, {}", state.name()),
            What::State { before, state } => write!(f, "{}, {} before", state.name(), before.name()),
            What::Begins { code, text } => write!(f, "begins [{code}]: {text}"),
            What::Ends { code } => write!(f, "ends [{code}]"),
            What::Silent { reason } => write!(f, "does not answer: {reason}"),
            What::Answers => f.write_str("answers again"),
            What::Gone => f.write_str("has stopped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::tests::{status, trouble};

    fn told(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    }

    #[test]
    fn each_change_is_told_once_with_its_time() {
        let mut watcher = Watcher::default();
        let up = Status { name: "fri".into(), ..status() };
        let waits = Status {
            state: State::Waiting,
            since: 1_000_050,
            problems: vec![trouble("peer-silent", "nothing heard")],
            ..up.clone()
        };
        assert_eq!(
            told(&watcher.look(1_000_020, vec![up.clone()], &[])),
            [r#"{"time":1000000,"link":"fri","event":"runs","pid":7,"state":"up"}"#]
        );
        assert_eq!(watcher.look(1_000_021, vec![up.clone()], &[]), []);
        assert_eq!(
            told(&watcher.look(1_000_051, vec![waits.clone()], &[])),
            [
                r#"{"time":1000050,"link":"fri","event":"state","before":"up","state":"waiting"}"#,
                r#"{"time":1000000,"link":"fri","event":"begins","code":"peer-silent","text":"nothing heard"}"#
            ]
        );
        assert_eq!(watcher.look(1_000_052, vec![waits], &[]), []);
        assert_eq!(
            told(&watcher.look(1_000_060, vec![Status { since: 1_000_059, ..up }], &[])),
            [
                r#"{"time":1000060,"link":"fri","event":"ends","code":"peer-silent"}"#,
                r#"{"time":1000059,"link":"fri","event":"state","before":"waiting","state":"up"}"#
            ]
        );
    }

    #[test]
    fn a_link_that_is_stuck_is_not_gone_and_one_of_the_same_name_is_another() {
        let mut watcher = Watcher::default();
        let [one, two] = [7, 8].map(|pid| Status { name: "fri".into(), pid, ..status() });
        watcher.look(1, vec![one.clone()], &[]);
        let stuck = [("fri".to_owned(), "timed out".to_owned())];
        let what = |events: Vec<Event>| events.into_iter().map(|event| event.what).collect::<Vec<_>>();
        let silent = What::Silent { reason: "timed out".into() };
        assert_eq!(what(watcher.look(2, vec![], &stuck)), [silent]);
        assert_eq!(what(watcher.look(3, vec![], &stuck)), []);
        assert_eq!(what(watcher.look(4, vec![one], &[])), [What::Answers]);
        let runs = What::Runs { pid: 8, state: State::Up };
        assert_eq!(what(watcher.look(5, vec![two], &[])), [runs, What::Gone]);
        assert_eq!(what(watcher.look(6, vec![], &[])), [What::Gone]);
    }

    /// The schema of `tund events --json`, generated from the types above.
    #[test]
    fn the_published_schema_is_that_of_an_event() {
        let settings = schemars::generate::SchemaSettings::draft07().for_serialize();
        let mut schema = settings.into_generator().into_root_schema_for::<Event>();
        schema.insert("title".to_owned(), "A line of what `tund events --json` prints".into());
        let right = format!("{:#}\n", schema.to_value());
        let published = include_str!("../../docs/event.schema.json");
        assert!(published == right, "docs/event.schema.json has to be\n{right}");
    }
}
