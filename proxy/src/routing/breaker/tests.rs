use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: CircuitSettings = CircuitSettings {
    failure_threshold: 3,
    failure_rate: 50,
    failure_window: Duration::from_mins(1),
    reset_timeout: Duration::from_mins(30),
};
const FAILURE: Finding = Finding::Failure {
    pause: Duration::from_mins(10),
    decisive: false,
};

/// Whether it opened the circuit.
fn settle(breaker: &mut Breaker, finding: Finding, now: Instant) -> bool {
    breaker.settle(finding, now, false, &SETTINGS, now) == Some(Turn::Opened)
}

fn seen(opening: u128, since: Instant, until: Instant) -> Seen {
    Seen {
        opening: Uuid::from_u128(opening),
        since,
        until,
        claimed_until: None,
    }
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = Breaker::new(now);
    assert_eq!(
        (0..3)
            .map(|_| settle(&mut breaker, FAILURE, now))
            .collect::<Vec<_>>(),
        [false, false, true]
    );
    breaker
}

#[test]
fn it_opens_at_the_threshold_and_lets_one_probe_through_after_the_pause() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let until = now + SECOND * 600;
    assert_eq!(breaker.opening(now), Some((now, until)));
    assert_eq!(
        breaker.admit(until.checked_sub(SECOND).unwrap()),
        Gate::Open { until }
    );
    assert_eq!(breaker.admit(until), Gate::Probe);
    assert_eq!(
        breaker.admit(until),
        Gate::Open {
            until: until + PROBE_CLAIM
        }
    );
    assert_eq!(
        breaker.settle(Finding::Success, until, true, &SETTINGS, until),
        Some(Turn::Closed(None))
    );
    assert_eq!(breaker.admit(until), Gate::Closed);
    assert!(breaker.is_idle(&SETTINGS, until));
}

#[test]
fn a_failed_probe_opens_it_again_and_keeps_the_beginning() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + SECOND * 600;
    assert_eq!(breaker.admit(later), Gate::Probe);
    let failure = Finding::Failure {
        pause: SECOND * 5,
        decisive: false,
    };
    assert_eq!(
        breaker.settle(failure, later, true, &SETTINGS, later),
        Some(Turn::Opened)
    );
    assert_eq!(breaker.opening(later), Some((now, later + SECOND * 5)));
}

#[test]
fn an_aborted_probe_decides_nothing_and_frees_the_claim() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + SECOND * 600;
    assert_eq!(breaker.admit(later), Gate::Probe);
    assert_eq!(
        breaker.settle(Finding::Nothing, later, true, &SETTINGS, later),
        Some(Turn::Freed)
    );
    assert_eq!(breaker.admit(later), Gate::Probe);
    assert_eq!(
        breaker.admit(later + PROBE_CLAIM),
        Gate::Probe,
        "a probe that never reports is given up"
    );
}

#[test]
fn few_failures_among_many_attempts_do_not_open_it() {
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    for _ in 0..10 {
        settle(&mut breaker, Finding::Success, now);
    }
    for _ in 0..9 {
        assert!(!settle(&mut breaker, FAILURE, now));
    }
    assert!(settle(&mut breaker, FAILURE, now), "ten of twenty are half");
}

#[test]
fn failures_are_forgotten_after_the_window() {
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    settle(&mut breaker, FAILURE, now);
    settle(&mut breaker, FAILURE, now + SECOND * 30);
    assert!(
        !settle(&mut breaker, FAILURE, now + SECOND * 61),
        "the first has left"
    );
    assert!(settle(&mut breaker, FAILURE, now + SECOND * 62));
}

#[test]
fn one_decisive_failure_is_enough() {
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    assert!(settle(
        &mut breaker,
        Finding::Failure {
            pause: SECOND,
            decisive: true
        },
        now
    ));
}

#[test]
fn the_pause_is_clamped() {
    let now = Instant::now();
    for (pause, clamped) in [
        (Duration::ZERO, MIN_PAUSE),
        (SECOND * 90, SECOND * 90),
        (SECOND * 9999, SETTINGS.reset_timeout),
    ] {
        let mut breaker = Breaker::new(now);
        settle(
            &mut breaker,
            Finding::Failure {
                pause,
                decisive: true,
            },
            now,
        );
        assert_eq!(breaker.opening(now), Some((now, now + clamped)));
    }
}

#[test]
fn attempts_that_began_before_it_opened_neither_prolong_nor_close_it() {
    let now = Instant::now();
    let mut breaker = opened(now + SECOND);
    let opening = breaker.opening(now + SECOND);
    for finding in [FAILURE, Finding::Success] {
        let later = now + SECOND * 2;
        assert_eq!(breaker.settle(finding, now, false, &SETTINGS, later), None);
        assert_eq!(breaker.opening(later), opening, "{finding:?}");
    }
}

#[test]
fn an_attempt_that_was_made_while_it_is_open_closes_it() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let later = now + SECOND;
    assert_eq!(
        breaker.settle(Finding::Success, later, false, &SETTINGS, later),
        Some(Turn::Closed(None))
    );
    assert_eq!(breaker.admit(later), Gate::Closed);
}

#[test]
fn a_success_from_before_a_failed_probe_or_another_processs_failure_does_not_close_it() {
    let now = Instant::now();
    let until = now + SECOND * 600;
    let mut reopened = opened(now);
    reopened.admit(until);
    reopened.settle(FAILURE, until, true, &SETTINGS, until);
    let mut adopted = Breaker::new(now);
    adopted.adopt(seen(1, now, until), until);
    for mut breaker in [reopened, adopted] {
        let between = now + SECOND;
        assert_eq!(
            breaker.settle(Finding::Success, between, false, &SETTINGS, until),
            None
        );
        assert!(
            breaker
                .settle(Finding::Success, until, false, &SETTINGS, until)
                .is_some()
        );
    }
}

#[test]
fn one_that_nobody_probes_is_forgotten_in_the_end() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let until = now + SECOND * 600;
    let late = until + FORGOTTEN_AFTER;
    assert!(breaker.opening(late.checked_sub(SECOND).unwrap()).is_some());
    assert_eq!(breaker.opening(late), None);
    assert!(breaker.is_idle(&SETTINGS, late), "it takes no place");
    assert_eq!(breaker.admit(late), Gate::Closed);
}

#[test]
fn what_another_process_found_is_taken_over() {
    let now = Instant::now();
    let until = now + SECOND * 30;
    let mut breaker = Breaker::new(now);
    assert!(breaker.adopt(seen(1, now, until), now));
    assert_eq!(breaker.admit(now), Gate::Open { until });
    let again = until + SAME / 2;
    assert!(
        !breaker.adopt(seen(1, now, again), now),
        "read again, it is no news"
    );
    assert_eq!(breaker.opening(now), Some((now, until)));
    assert!(
        breaker.adopt(seen(1, now, now + SECOND), now),
        "its pause was shortened"
    );
    assert_eq!(
        breaker.settle(Finding::Success, now, false, &SETTINGS, now),
        Some(Turn::Closed(Some(Uuid::from_u128(1))))
    );
}

#[test]
fn the_probe_of_another_process_is_waited_for_until_it_is_given_back() {
    let now = Instant::now();
    let mut breaker = Breaker::new(now);
    let theirs = Seen {
        claimed_until: Some(now + SECOND * 40),
        ..seen(1, now, now)
    };
    breaker.adopt(theirs, now);
    assert_eq!(
        breaker.admit(now),
        Gate::Open {
            until: now + SECOND * 40
        }
    );
    assert!(!breaker.is_probing());
    assert_eq!(
        breaker.settle(Finding::Nothing, now, true, &SETTINGS, now),
        None,
        "it is not this process's to give back"
    );
    breaker.adopt(theirs, now);
    breaker.adopt(seen(1, now, now), now);
    assert_eq!(breaker.admit(now), Gate::Probe);
    breaker.adopt(seen(1, now, now), now);
    assert!(breaker.is_probing(), "an own probe goes on");
    breaker.adopt(seen(2, now, now), now);
    assert!(!breaker.is_probing(), "but not into another opening");
}

proptest! {
    #[test]
    fn it_opens_at_threshold_and_rate_and_not_before(events in prop::collection::vec((any::<bool>(), 0_u64..20), 0..200)) {
        let start = Instant::now();
        let (mut breaker, mut now) = (Breaker::new(start), start);
        let mut seen: Vec<(Instant, bool)> = Vec::new();
        for (failed, wait) in events {
            now += SECOND * u32::try_from(wait).unwrap();
            seen.push((now, failed));
            let opened = settle(&mut breaker, if failed { FAILURE } else { Finding::Success }, now);
            // The window moves by twelfths: this one and the eleven before count.
            let twelfth = |at: Instant| (at - start).as_secs() / (SETTINGS.failure_window.as_secs() / 12);
            let recent: Vec<bool> =
                seen.iter().filter(|(at, _)| twelfth(*at) + 12 > twelfth(now)).map(|(_, failed)| *failed).collect();
            let failures = recent.iter().filter(|failed| **failed).count();
            let due = failed && failures >= 3 && failures * 100 >= recent.len() * 50;
            prop_assert_eq!(opened, due, "{} failures of {}", failures, recent.len());
            if opened {
                break;
            }
        }
    }

    #[test]
    fn at_most_one_probe_at_a_time(waits in prop::collection::vec(0_u64..90, 1..100)) {
        let start = Instant::now();
        let (mut breaker, mut now) = (opened(start), start + SECOND * 600);
        let mut last_probe: Option<Instant> = None;
        for wait in waits {
            now += SECOND * u32::try_from(wait).unwrap();
            if breaker.admit(now) == Gate::Probe {
                prop_assert!(last_probe.is_none_or(|last| now >= last + PROBE_CLAIM));
                last_probe = Some(now);
            }
        }
    }
}
