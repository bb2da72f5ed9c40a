//! What an OpenVPN peer's link keeps across restarts: the time of its last start, the peer's latest, and how this host recognises its own datagrams.
//! All are on disk before they are used.

use std::io;

use base16ct::HexDisplay;

use crate::config::Config;
use crate::core::openvpn::admission::{AHEAD, Kept};
use crate::crypto::Random;
use crate::host::directories::{self, STATE};
use crate::host::directory::Directory;
use crate::parent::Parent;
use crate::privsep::message::{Start, ToEngine};
use crate::report::exit::{BUG, FAILED, Fatal, UNAVAILABLE};
use crate::sys::clock::unix_time;
use crate::sys::random::Os;

/// The file.
const NAME: &str = "openvpn";
/// The remedy if it cannot be written.
const REMEDY: &str = "a start that is not on disk cannot be told from an earlier one: set run.state-dir to a writable directory";
/// Maximum difference between the engine's and the parent's clock, in seconds.
const SLACK: u32 = 60;
/// Maximum length of the file, in bytes.
const LONGEST: u64 = 256;

/// The numbers, and their file.
pub struct Starts {
    directory: Directory,
    kept: Kept,
    check: [u8; 16],
}

impl Starts {
    /// Reads the link's starts; `None` without an OpenVPN peer.
    ///
    /// # Errors
    /// There is no place for the file, or it cannot be read: without it, replays would be accepted.
    pub fn open(config: &Config) -> Result<Option<Self>, Fatal> {
        if config.key.openvpn.is_none() {
            return Ok(None);
        }
        let directory = directories::make_state(STATE, config.run.state_dir.as_deref(), &config.name)?;
        let place = directory.path().join(NAME);
        let (kept, check) = match directory.read(NAME, LONGEST) {
            Ok(bytes) => parse(&bytes).ok_or_else(|| {
                let place = place.display();
                let text = format!("{place} is damaged: remove it; the peer then has to prove its start, and must be restarted \
                                    if it accepts nothing from this end");
                Fatal::new(FAILED, text)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Kept::default(), Os.bytes()),
            Err(error) => {
                let text = "without it a recording could be replayed: let the user who starts tund read it";
                return Err(Fatal::new(FAILED, format!("cannot read {}: {error}; {text}", place.display())));
            }
        };
        Ok(Some(Self { directory, kept, check }))
    }

    /// Writes these numbers, if higher.
    fn keep(&mut self, kept: Kept) -> io::Result<()> {
        let own = self.kept.own.max(kept.own);
        let admitted = self.kept.admitted.max(kept.admitted);
        let next = Kept { own, admitted };
        if next != self.kept {
            self.directory.store(NAME, write(next, &self.check).as_bytes())?;
            self.kept = next;
        }
        Ok(())
    }
}

impl Parent {
    /// Gives an engine its start time, later than all before.
    pub(super) fn begin_own_start(&mut self, start: &mut Start) -> Result<(), Fatal> {
        let Some(starts) = &mut self.link.starts else { return Ok(()) };
        let clock = u32::try_from(unix_time()).unwrap_or(u32::MAX);
        let place = starts.directory.path().join(NAME);
        starts.keep(starts.kept.started(clock)).map_err(|error| {
            Fatal::new(UNAVAILABLE, format!("cannot write {}: {error}; {REMEDY}", place.display()))
        })?;
        start.kept = starts.kept;
        if let Some(keys) = &mut start.keys.openvpn {
            keys.check = starts.check;
        }
        Ok(())
    }

    /// Stores what the engine waits for before it goes on.
    pub(super) fn keep(&mut self, kept: Kept) {
        let Some(starts) = &mut self.link.starts else { return };
        let place = starts.directory.path().join(NAME);
        if !is_credible(starts.kept, kept, u32::try_from(unix_time()).unwrap_or(u32::MAX)) {
            return self.end(BUG, "the engine wants to keep a start far in the future; ending it".to_owned());
        }
        match starts.keep(kept) {
            Ok(()) => self.answer(&ToEngine::Kept(kept)),
            Err(error) => {
                self.end(UNAVAILABLE, format!("cannot write {}: {error}; {REMEDY}", place.display()))
            }
        }
    }
}

/// Whether an honest engine could want to keep `next` after `before`. No start is later than the last one on disk: one far in the future would
/// prevent all new ones.
fn is_credible(before: Kept, next: Kept, clock: u32) -> bool {
    let latest = clock.saturating_add(AHEAD + SLACK);
    next.own <= latest.max(before.own.saturating_add(1)) && next.admitted <= latest.max(before.admitted)
}

fn write(kept: Kept, check: &[u8; 16]) -> String {
    format!("own {}\nadmitted {}\ncheck {:x}\n", kept.own, kept.admitted, HexDisplay(check))
}

fn parse(bytes: &[u8]) -> Option<(Kept, [u8; 16])> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    let own = lines.next()?.strip_prefix("own ")?.parse().ok()?;
    let admitted = lines.next()?.strip_prefix("admitted ")?.parse().ok()?;
    let mut check = [0; 16];
    let digits = lines.next()?.strip_prefix("check ")?;
    let whole = base16ct::lower::decode(digits, &mut check).ok()?.len() == check.len();
    (whole && lines.next().is_none()).then_some((Kept { own, admitted }, check))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_cannot_put_the_starts_so_far_ahead_that_none_is_later() {
        let clock = 1_796_000_000;
        let kept = |own, admitted| Kept { own, admitted };
        let before = kept(clock - 9, clock - 9);
        for good in [kept(clock, 0), kept(clock + AHEAD + 1, clock + AHEAD), before] {
            assert!(is_credible(before, good, clock), "{good:?}");
        }
        for bad in [kept(u32::MAX, 0), kept(0, u32::MAX), kept(clock + 1000, clock)] {
            assert!(!is_credible(before, bad, clock), "{bad:?}");
        }
        // A clock that was set back changes nothing on disk, and the next start is still later.
        let ahead = kept(clock + 5000, clock + 5000);
        assert!(is_credible(ahead, kept(clock + 5001, clock + 5000), clock));
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let kept = Kept { own: 1_796_000_000, admitted: u32::MAX };
        let text = write(kept, &[7; 16]);
        assert_eq!(parse(text.as_bytes()), Some((kept, [7; 16])));
        assert!((text.len() as u64) < LONGEST);
        for length in 0..text.len() - 1 {
            assert!(
                parse(&text.as_bytes()[..length])
                    .is_none_or(|(read, _)| read == kept && length + 1 == text.len()),
                "{length}"
            );
        }
        assert_eq!(parse(format!("{text}own 1\n").as_bytes()), None);
        assert_eq!(parse(b"own -1\nadmitted 0\ncheck 00\n"), None);
    }
}
