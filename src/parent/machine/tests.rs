//! Tests of the machine without a host: its effects are written as one line.

mod rig;

use tund_proto::testing::Dice;

use super::*;
use crate::report::exit::{BUG, UNAVAILABLE};
use rig::Rig;

fn term() -> Event {
    Event::Terminate { reason: "SIGTERM: stopping".to_owned(), signal: "sigterm" }
}

fn ended() -> Event {
    Event::ScriptEnded(Ok(()))
}

fn script_failed() -> Event {
    Event::ScriptEnded(Err("exit status: 4".to_owned()))
}

fn gone() -> Event {
    Event::EngineGone("the engine died".to_owned())
}

const START: &str = "OpenDevice up LookUp SetRoutes route-up StartEngine";

#[test]
fn a_link_starts_and_is_taken_back_in_reverse() {
    let mut rig = Rig::new(false);
    assert_eq!(rig.wait(0), START);
    assert_eq!(rig.machine.poll_timeout(), None);
    assert_eq!(rig.after([Event::LinkUp]), "+ link-up");
    assert_eq!(
        rig.after([term()]),
        "End(0) StopEngine link-down(sigterm) route-down(sigterm) UndoRoutes down(sigterm) UndoDevice OpenTunnel"
    );
    assert_eq!((rig.machine.exit_code(), rig.engines), (Some(0), 0));
}

#[test]
fn a_superserver_s_link_opens_its_device_once_and_when_the_engine_asks() {
    let mut rig = Rig::new(true);
    rig.work();
    assert_eq!(rig.after([]), "StartEngine");
    let ready = "OpenDevice up LookUp SetRoutes route-up HandDeviceOver";
    assert_eq!(rig.after([Event::OpenDevice, Event::OpenDevice]), ready);
    assert_eq!(rig.after([Event::OpenDevice, Event::LinkUp]), "+ link-up");
    // The link may be up earlier.
    let mut rig = Rig::new(true);
    assert_eq!(
        rig.after([Event::LinkUp, Event::OpenDevice]),
        format!("+ StartEngine link-up {ready} AnnounceAddresses")
    );
    // Idle: another parent follows.
    let done = Event::LastWords(End::Done, "no frame passed".to_owned());
    assert!(rig.after([done, gone()]).starts_with("End(0) StopEngine link-down(inactive)"));
    assert_eq!(rig.machine.exit_code(), Some(0));
    // Without a device there is nothing to hand over, and no script.
    let mut rig = Rig::new(true);
    rig.broken = Some(Effect::OpenDevice);
    assert_eq!(
        rig.after([Event::OpenDevice]),
        "StartEngine OpenDevice End(69) StopEngine UndoRoutes UndoDevice"
    );
}

#[test]
fn the_last_state_of_a_link_that_goes_up_and_down_is_told_to_scripts() {
    let mut rig = Rig::running();
    rig.slow = true;
    assert_eq!(rig.after([Event::LinkUp]), "+ link-up");
    let flapping = (0..20).flat_map(|_| [Event::LinkDown, Event::LinkUp]);
    assert_eq!(rig.after(flapping).matches(['+', '-']).count(), 40);
    let scripts: Vec<_> = (0..6).map(|_| rig.after([ended()])).collect();
    let down = "link-down(ping-restart)";
    assert_eq!(scripts, [down, "link-up", down, "link-up", "", ""], "of a long row the last four");
    assert_eq!(rig.after([Event::LinkUp, Event::LinkUp]), "", "it is up already");
    // What was announced last is undone, not the current state.
    let mut rig = Rig::running();
    rig.slow = true;
    rig.after([Event::LinkUp, Event::LinkDown]);
    assert_eq!(rig.after([term()]), "End(0) TerminateScript");
    assert!(rig.after([ended(), ended()]).starts_with("StopEngine link-down(sigterm) route-down(sigterm)"));
}

#[test]
fn what_fails_at_the_start_takes_back_what_was_done() {
    let cases = [
        (Effect::OpenDevice, "OpenDevice End(69) StopEngine UndoRoutes UndoDevice"),
        (
            Effect::SetRoutes,
            "OpenDevice up LookUp SetRoutes End(69) StopEngine route-down(error) UndoRoutes down(error) UndoDevice",
        ),
        (
            Effect::StartEngine,
            "OpenDevice up LookUp SetRoutes route-up StartEngine End(69) StopEngine route-down(error) UndoRoutes \
             down(error) UndoDevice",
        ),
    ];
    for (effect, expected) in cases {
        let mut rig = Rig::new(false);
        rig.broken = Some(effect);
        rig.work();
        assert_eq!(rig.after([]), expected);
        assert_eq!(rig.machine.exit_code(), Some(UNAVAILABLE));
    }
}

#[test]
fn without_up_there_is_no_link_and_every_other_script_may_fail() {
    let mut rig = Rig::new(false);
    rig.slow = true;
    rig.work();
    assert_eq!(rig.after([script_failed()]), "OpenDevice up End(1) StopEngine UndoRoutes UndoDevice");
    assert_eq!(rig.machine.exit_code(), Some(FAILED));

    let mut rig = Rig::new(false);
    rig.slow = true;
    rig.work();
    assert_eq!(rig.after([ended(), Event::LookedUp]), "OpenDevice up LookUp SetRoutes route-up");
    assert_eq!(rig.after([script_failed()]), "StartEngine");
    assert_eq!(
        rig.after([Event::LinkUp, script_failed(), Event::LinkDown]),
        "+ link-up - link-down(ping-restart)"
    );
    assert_eq!(rig.after([script_failed(), Event::LinkUp, ended()]), "+ link-up");
    assert_eq!(
        rig.after([term(), script_failed(), script_failed(), script_failed()]),
        "End(0) StopEngine link-down(sigterm) route-down(sigterm) UndoRoutes down(sigterm) UndoDevice OpenTunnel"
    );
    assert_eq!(rig.machine.exit_code(), Some(0));
}

#[test]
fn a_signal_ends_each_stage_and_a_second_one_ends_it_without_scripts() {
    /// Earlier events, their effects, those of the signal, and those of a second one.
    type Case = (&'static [fn() -> Event], &'static str, &'static str, &'static str);
    let cases: [Case; 5] = [
        (
            &[],
            "OpenDevice up",
            "End(0) TerminateScript",
            "KillScript KillEngine UndoRoutes UndoDevice OpenTunnel",
        ),
        (
            &[ended],
            "OpenDevice up LookUp",
            "End(0) StopEngine UndoRoutes down(sigterm)",
            "KillScript UndoDevice OpenTunnel",
        ),
        (
            &[ended, || Event::LookedUp],
            "OpenDevice up LookUp SetRoutes route-up",
            "End(0) TerminateScript",
            "KillScript KillEngine UndoRoutes UndoDevice OpenTunnel",
        ),
        (
            &[ended, || Event::LookedUp, ended],
            "OpenDevice up LookUp SetRoutes route-up StartEngine",
            "End(0) StopEngine",
            "KillEngine UndoRoutes UndoDevice OpenTunnel",
        ),
        (
            &[ended, || Event::LookedUp, ended, || Event::LinkUp],
            "OpenDevice up LookUp SetRoutes route-up StartEngine + link-up",
            "End(0) TerminateScript",
            "KillScript KillEngine UndoRoutes UndoDevice OpenTunnel",
        ),
    ];
    for (events, before, first, second) in cases {
        let mut rig = Rig::new(false);
        (rig.slow, rig.deaf) = (true, true);
        rig.work();
        assert_eq!(rig.after(events.iter().map(|event| event())), before);
        assert_eq!(rig.after([term()]), first, "{before}");
        assert_eq!(rig.machine.exit_code(), None, "{before}");
        assert_eq!(rig.after([term()]), second, "{before}");
        assert_eq!((rig.machine.exit_code(), rig.engines), (Some(0), 0), "{before}");
        assert_eq!(rig.after([term(), ended(), gone()]), "", "{before}");
    }
}

#[test]
fn an_engine_that_says_no_farewell_is_killed_after_a_second() {
    let mut rig = Rig::running();
    rig.deaf = true;
    assert_eq!(rig.after([term()]), "End(0) StopEngine");
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + FAREWELL));
    assert_eq!(rig.wait(0), "");
    assert_eq!(rig.wait(1), "KillEngine route-down(sigterm) UndoRoutes down(sigterm) UndoDevice OpenTunnel");
}

#[test]
fn names_that_do_not_resolve_hold_the_start_up_for_twelve_seconds() {
    let mut rig = Rig::new(false);
    rig.slow = true;
    rig.work();
    assert_eq!(rig.after([ended()]), "OpenDevice up LookUp");
    assert_eq!(rig.wait(11), "");
    assert_eq!(rig.wait(1), "SetRoutes route-up");
    assert_eq!(rig.after([Event::LookedUp, ended()]), "StartEngine", "too late");
}

#[test]
fn the_end_of_an_engine_that_nobody_asked_for_ends_the_link() {
    let words = |end| Event::LastWords(end, "enough".to_owned());
    let cases: [(&[Event], u8); 6] = [
        (&[], BUG),
        (&[words(End::Done)], FAILED),
        (&[words(End::Failed)], FAILED),
        (&[words(End::Unavailable)], UNAVAILABLE),
        (&[words(End::Bug)], BUG),
        (&[words(End::Unavailable), words(End::Done)], UNAVAILABLE),
    ];
    for (said, code) in cases {
        let mut rig = Rig::running();
        rig.after(said.iter().cloned());
        let expected = format!("End({code}) StopEngine route-down(error) UndoRoutes down(error) UndoDevice");
        assert_eq!(rig.after([gone()]), expected, "nothing closed is opened");
        assert_eq!(rig.machine.exit_code(), Some(code));
    }
    // While the device is prepared, too: the script is ended first, and `down` has nothing to undo.
    let mut rig = Rig::new(true);
    rig.slow = true;
    assert_eq!(rig.after([Event::OpenDevice, gone()]), "StartEngine OpenDevice up End(70) TerminateScript");
    assert_eq!(rig.after([ended()]), "StopEngine UndoRoutes UndoDevice");
}

fn lost() -> [Event; 2] {
    [Event::LastWords(End::DeviceLost, "lost".to_owned()), gone()]
}

/// The effects of a loss and renewal.
const LOST: &str = "DeviceLost(\"lost\") route-down UndoRoutes down UndoDevice";
const AGAIN: &str = "Renew OpenDevice up LookUp SetRoutes route-up StartEngine";

#[test]
fn a_lost_device_is_made_again_with_all_that_belongs_to_it_five_times_a_minute() {
    let mut rig = Rig::running();
    assert_eq!(rig.after([Event::LinkUp]), "+ link-up");
    assert_eq!(
        rig.after(lost()),
        format!(
            "DeviceLost(\"lost\") - link-down(ping-restart) route-down UndoRoutes down UndoDevice {AGAIN}"
        )
    );
    assert_eq!(rig.after(lost()), LOST);
    assert_eq!(rig.wait(11), "");
    assert_eq!(rig.machine.poll_timeout(), Some(rig.now + Duration::from_secs(1)));
    assert_eq!(rig.after([Event::Reload]), "", "what is wanted meanwhile comes afterwards");
    assert_eq!(rig.wait(1), format!("{AGAIN} Reload FinishReload"));
    assert_eq!((rig.machine.exit_code(), rig.engines), (None, 1));
    assert!(rig.after([term()]).starts_with("End(0) StopEngine route-down(sigterm) UndoRoutes"));
}

#[test]
fn a_link_whose_device_is_not_made_again_has_nothing_more_to_undo() {
    let mut rig = Rig::running();
    rig.broken = Some(Effect::OpenDevice);
    assert_eq!(
        rig.after(lost()),
        format!("{LOST} Renew OpenDevice End(69) StopEngine UndoRoutes UndoDevice")
    );
    let mut rig = Rig::running();
    rig.after(lost());
    rig.after(lost());
    assert_eq!(rig.after([term()]), "End(0) StopEngine UndoRoutes UndoDevice OpenTunnel");
    let mut rig = Rig::new(true);
    rig.work();
    rig.after([Event::OpenDevice]);
    assert!(rig.after(lost()).starts_with("End(1) "), "a superserver's port is not bound again");
}

#[test]
fn a_reload_replaces_the_engine_when_it_must_and_is_answered_then() {
    let mut rig = Rig::running();
    assert_eq!(rig.after([Event::Reload]), "Reload FinishReload");
    rig.after([Event::LinkUp]);
    (rig.replaces, rig.deaf) = (true, true);
    assert_eq!(rig.after([Event::Reload]), "Reload StopEngine");
    // Later requests come afterwards, once; so do link-up and link-down scripts.
    assert_eq!(rig.after([Event::NewSocket, Event::NewSocket, Event::LinkDown, Event::LinkUp]), "- +");
    (rig.replaces, rig.deaf) = (false, false);
    let words = Event::LastWords(End::Done, String::new());
    assert_eq!(
        rig.after([words, gone()]),
        "- StartEngine FinishReload TakeNewSocket link-down(ping-restart) link-up link-down(ping-restart)"
    );
    assert_eq!(rig.engines, 1);
    // The end of the new engine is a failure.
    assert!(rig.after([gone()]).starts_with("End(70) StopEngine route-down(error)"));
}

#[test]
fn a_new_engine_that_cannot_be_started_ends_the_link_and_so_does_a_signal_meanwhile() {
    let mut rig = Rig::running();
    (rig.replaces, rig.broken) = (true, Some(Effect::StartEngine));
    let undone = "StopEngine route-down(error) UndoRoutes down(error) UndoDevice";
    assert_eq!(
        rig.after([Event::NewSocket]),
        format!("TakeNewSocket StopEngine StartEngine End(69) {undone}")
    );
    let mut rig = Rig::running();
    (rig.replaces, rig.deaf) = (true, true);
    assert_eq!(rig.after([Event::Reload, term()]), "Reload StopEngine End(0) StopEngine");
    assert_eq!(
        rig.after([gone(), Event::Reload, Event::NewSocket, Event::OpenDevice]),
        "route-down(sigterm) UndoRoutes down(sigterm) UndoDevice OpenTunnel"
    );
}

/// Whatever an engine says, in whatever order, scripts come in pairs, one engine runs at a time, and the parent ends.
#[test]
fn events_in_any_order_leave_nothing_behind() {
    for seed in 0..20_000_u64 {
        let mut rig = Rig::new(seed % 2 == 0);
        let mut dice = Dice(seed);
        rig.work();
        for _ in 0..40 {
            (rig.slow, rig.deaf, rig.replaces) = (dice.below(2) == 0, dice.below(2) == 0, dice.below(2) == 0);
            let event = match dice.below(14) {
                0 => Event::OpenDevice,
                1 | 2 => Event::LinkUp,
                3 | 4 => Event::LinkDown,
                5 => Event::LastWords([End::Done, End::DeviceLost][dice.below(2)], String::new()),
                6 => Event::Reload,
                7 => Event::NewSocket,
                8 if rig.machine.script.is_some() => script_failed(),
                9 if rig.engines > 0 && dice.below(8) == 0 => {
                    rig.engines = 0;
                    gone()
                }
                10 => Event::BridgeMtu,
                11 => Event::LookedUp,
                _ if rig.machine.script.is_some() => ended(),
                _ => Event::LinkUp,
            };
            rig.machine.handle(event);
            rig.work();
            if rig.machine.exit_code().is_some() {
                break;
            }
            assert!(rig.engines <= 1 && rig.machine.agenda.len() < 40, "seed {seed}");
        }
        (rig.slow, rig.deaf, rig.replaces) = (false, false, false);
        for _ in 0..2 {
            rig.machine.handle(term());
            rig.machine.handle(ended());
            rig.work();
        }
        let code = rig.machine.exit_code();
        assert!(code.is_some() && rig.engines == 0, "seed {seed}: {:?}", rig.machine);
        let last = rig.done.iter().rposition(|effect| effect == "UndoDevice").unwrap();
        assert!(rig.done.len() - last <= 2, "seed {seed}: {:?}", rig.done);
        let count = |what: &str| rig.done.iter().filter(|done| *done == what).count();
        let begun = |what: &str| rig.done.iter().filter(|done| done.starts_with(what)).count();
        let (lost, again) = (begun("DeviceLost"), count("Renew"));
        assert!(count("OpenDevice") <= 1 + again && again <= lost, "seed {seed}");
        assert!((1..=1 + lost).contains(&count("UndoRoutes")), "seed {seed}");
        assert!(begun("down") <= count("up") && begun("route-down") <= count("SetRoutes"), "seed {seed}");
        assert!(code == Some(0) || count("OpenTunnel") == 0, "seed {seed}: opened");
    }
}
