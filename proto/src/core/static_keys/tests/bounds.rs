//! Memory and derivations are bounded, and what exceeds a bound is refused.

use super::*;

const O: usize = RECEIVER;

/// An end that drew one key id, and a sealer for it.
struct Bound {
    keys: StaticKeys,
    own: KeyId,
    now: Now,
    random: Dice,
}

impl Bound {
    fn new() -> Self {
        let now = Now { instant: start(), wall: HOUR };
        let mut keys = StaticKeys::new(Arc::new(LinkKeys::new(&[1; 32])), CIPHER, O as u8, 100, now);
        let mut random = Dice(1);
        let own = keys.draw(now, &mut random);
        Self { keys, own, now, random }
    }

    /// The peer's key id with this number.
    fn key_id(&self, number: u32) -> KeyId {
        KeyId::new(&self.keys.keys, HOUR + u64::from(number), number.to_be_bytes())
    }

    /// A hello that names `own`, under this header.
    fn hello(&self, key_id: KeyId, own: KeyId, header: Header) -> Received {
        let body = hello(Some(own), false);
        let aead = self.keys.keys.static_key(CIPHER, 1 - O as u8, &key_id.0);
        let format = Format::new(Framing::Static, self.keys.keys.clone());
        let datagram = format.datagram(Head { name: Name::KeyId(key_id), header }, &aead, &body).unwrap();
        Received { from: SocketAddr::from(([192, 0, 2, 1], 1417)).into(), datagram }
    }

    fn judge(&mut self, key_id: KeyId, received: Received) -> Verdict {
        self.keys.handle_unknown(self.now, key_id, received, false)
    }
}

const HEADER: Header = Header { slot: 0, kind: Kind::Control, lane: 0, counter: 7 };

/// More key ids than are remembered were live and ended. None comes back, though each hello for which one was taken names
/// a key id that was valid then.
#[test]
fn more_ended_key_ids_than_are_remembered_come_back_with_no_hello() {
    let mut end = Bound::new();
    let hellos: Vec<_> =
        (0..200).map(|n| (end.key_id(n), end.hello(end.key_id(n), end.own, HEADER))).collect();
    let mut taken = Vec::new();
    for (key_id, hello) in &hellos {
        if let Verdict::Taken { after: 7, .. } = end.judge(*key_id, hello.clone()) {
            taken.push(*key_id);
        }
        assert!(end.keys.taken.ended().count() <= 65);
    }
    assert!((65..200).contains(&taken.len()), "{} taken", taken.len());
    for (key_id, hello) in hellos {
        let again = end.judge(key_id, hello);
        assert!(!matches!(again, Verdict::Taken { .. }), "{again:?}");
    }
    assert!(end.keys.sending().is_renewal_due(end.now.instant), "an own key id that may be named is wanted");
    end.own = end.keys.draw(end.now, &mut end.random);
    let new = end.key_id(1000);
    let hello = end.hello(new, end.own, HEADER);
    assert!(matches!(end.judge(new, hello), Verdict::Taken { after: 7, .. }));
}

#[test]
fn keys_are_derived_a_thousand_times_a_second_and_no_more() {
    let mut end = Bound::new();
    for number in 0..=DERIVATIONS {
        let key_id = end.key_id(number);
        let mut forged = end.hello(key_id, end.own, HEADER);
        // Neither header nor key id.
        let body = Framing::Static.body(forged.datagram.len());
        forged.datagram[body][0] ^= 1;
        let reason = if number < DERIVATIONS { DropReason::BadTag } else { DropReason::RateLimited };
        assert_eq!(end.judge(key_id, forged), Verdict::Dropped(reason), "number {number}");
    }
    end.now.instant += Duration::from_secs(1);
    let key_id = end.key_id(2000);
    let hello = end.hello(key_id, end.own, HEADER);
    assert!(matches!(end.judge(key_id, hello), Verdict::Taken { .. }));
}

#[test]
fn a_hello_where_none_may_be_makes_no_key_id_live() {
    let mut end = Bound::new();
    let wrong = [
        Header { slot: 1, ..HEADER },
        Header { lane: 1, ..HEADER },
        Header { counter: COUNTER_END, ..HEADER },
    ];
    for (number, header) in (0..).zip(wrong) {
        let key_id = end.key_id(number);
        let hello = end.hello(key_id, end.own, header);
        assert_eq!(end.judge(key_id, hello), Verdict::Dropped(DropReason::Malformed), "{header:?}");
        assert!(!end.keys.is_live(key_id));
    }
}
