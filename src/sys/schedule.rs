//! A thread's scheduling policy.

use std::io;
use std::mem::MaybeUninit;

/// Keeps this thread and its future threads from preempting those that wake them (SCHED_BATCH, sched(7)).
///
/// A sender that is not preempted hands over more at once, and then sleeps by itself: the packet's next hop finds its processor free, and needs no
/// other one, which would have to be woken first. A policy other than SCHED_OTHER was chosen by someone, and is kept. Errors are those of
/// sched_setscheduler(2).
pub fn set_sched_batch() -> io::Result<()> {
    // SAFETY: zeros are a valid sched_param, including priority 0; musl's has more fields.
    let parameters: libc::sched_param = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the first call takes no pointer, the second reads `parameters`, which outlives it; both concern this thread.
    let result = unsafe {
        match libc::sched_getscheduler(0) {
            libc::SCHED_OTHER => libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters),
            policy => policy.min(0),
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn policy() -> i32 {
        // SAFETY: no pointers; about this thread.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn threads_started_afterwards_interrupt_nobody_either() {
        let both = thread::spawn(|| {
            assert_eq!(policy(), libc::SCHED_OTHER);
            set_sched_batch().unwrap();
            [policy(), thread::spawn(policy).join().unwrap()]
        });
        assert_eq!(both.join().unwrap(), [libc::SCHED_BATCH; 2]);
    }

    #[test]
    fn a_policy_that_somebody_chose_stays() {
        let chosen = thread::spawn(|| {
            let parameters = libc::sched_param { sched_priority: 0 };
            // SAFETY: `parameters` outlives the call, which concerns this thread.
            assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) }, 0);
            set_sched_batch().unwrap();
            policy()
        });
        assert_eq!(chosen.join().unwrap(), libc::SCHED_IDLE);
    }
}
