//! Follows events of running links.
#![allow(clippy::disallowed_methods, reason = "a command that follows links sleeps between two looks")]

use super::print;
use super::status::{STATUS_PATIENCE, WATCH, ask_all, failed, is_gone, running_now};
use crate::control::events::{Event, Watcher};
use crate::report::exit::{FAILED, Fatal};
use crate::report::stderr::{show, stamp};
use crate::sys::clock::unix_time;

/// Prints events of the link of that name or file, or of all, one per line, until the output is closed. A link need not run yet: standard error says
/// at once what is waited for.
pub fn run(link: Option<&str>, json: bool) -> Result<(), Fatal> {
    let (mut watcher, mut is_first) = (Watcher::default(), true);
    loop {
        for event in look(&mut watcher, link, std::mem::take(&mut is_first))? {
            let line = match json {
                true => serde_json::to_string(&event).map_err(|error| Fatal::new(FAILED, error))?,
                false => format!("{} {event}", stamp(event.time)),
            };
            print(line + "\n")?;
        }
        std::thread::sleep(WATCH);
    }
}

fn look(watcher: &mut Watcher, link: Option<&str>, is_first: bool) -> Result<Vec<Event>, Fatal> {
    let (mut links, mut silent) = (Vec::new(), Vec::new());
    for answer in ask_all(&running_now(link)?, STATUS_PATIENCE) {
        match answer {
            Ok(status) => links.push(status),
            Err((_, error)) if is_gone(&error) => {}
            Err((socket, error)) => silent.push((socket.name.clone(), failed(socket, &error).to_string())),
        }
    }
    if is_first {
        silent.iter().for_each(|(_, why)| show(&format!("tund: {why}\n")));
        if links.is_empty() && silent.is_empty() {
            let which = link.map_or("no link is running".to_owned(), |link| format!("{link} is not running"));
            show(&format!("tund: {which}; waiting for its start\n"));
        }
    }
    Ok(watcher.look(unix_time(), links, &silent))
}
