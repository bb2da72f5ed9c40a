//! Reads the bytes of a fuzz input as a script.

/// The rest of a script, followed by endless zeros.
pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn number(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }

    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes preceded by their count.
    pub(crate) fn counted(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.bytes(count.into())
    }
}

/// The start of a script's time.
#[allow(clippy::disallowed_methods, reason = "an instant has no other beginning; only differences count")]
pub(crate) fn beginning() -> std::time::Instant {
    std::time::Instant::now()
}
