//! Log lines for which the destination had no room: counted, and reported once there is room.

use std::sync::{Mutex, PoisonError};

use log::Level;

/// The number of lines that a destination has missed.
pub struct Unwritten(Mutex<u64>);

impl Unwritten {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(0))
    }

    /// Passes a line to `put`, which must not block and returns whether it was written. Before the first line that is written again comes one with
    /// the number of missed lines.
    pub fn write(&self, level: Level, text: &str, put: impl Fn(Level, &str) -> bool) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *lines > 0 && put(Level::Warn, &format!("{lines} lines of the log could not be written")) {
            *lines = 0;
        }
        // No line may follow without the number: it would hide the gap.
        if *lines > 0 || !put(level, text) {
            *lines = lines.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[test]
    fn what_could_not_be_written_is_counted_and_told_before_the_next_line() {
        let (room, read) = (Cell::new(1), RefCell::new(Vec::new()));
        let unwritten = Unwritten::new();
        let write = |text: &str| {
            unwritten.write(Level::Info, text, |level, text| {
                let written = room.get() > 0;
                if written {
                    room.set(room.get() - 1);
                    read.borrow_mut().push(format!("{level} {text}"));
                }
                written
            });
        };
        ["a", "b", "c"].into_iter().for_each(write);
        room.set(1);
        // The number has taken the room, so the line itself counts as missed.
        write("d");
        room.set(3);
        ["e", "f"].into_iter().for_each(write);
        let missing = |count| format!("WARN {count} lines of the log could not be written");
        assert_eq!(
            *read.borrow(),
            ["INFO a".to_owned(), missing(2), missing(1), "INFO e".to_owned(), "INFO f".to_owned()]
        );
    }
}
