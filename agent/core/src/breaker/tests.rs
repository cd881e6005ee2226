use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const NONE: Jitter = Jitter::from_bits(0);

fn pace(volumes: usize) -> Pace {
    Pace { interval: HOUR, volumes, latest: 100 * HOUR }
}

/// After as many outages as it takes.
fn open() -> Breaker {
    let mut breaker = Breaker::default();
    (0..THRESHOLD).for_each(|_| breaker.failed(HOUR, None, NONE));
    breaker
}

#[test]
fn refreshes_wait_after_outages_in_a_row_and_not_before() {
    let mut breaker = Breaker::default();
    for _ in 0..3 {
        (1..THRESHOLD).for_each(|_| breaker.failed(HOUR, None, NONE));
        assert_eq!(breaker.admit(HOUR, pace(1)), Ok(()));
        breaker.answered();
    }
    let wait = open().admit(HOUR, pace(1)).unwrap_err();
    assert_eq!(wait, Wait { until: HOUR + FIRST_PAUSE / 2, turn: HOUR + FIRST_PAUSE / 2 });
}

#[test]
fn one_asks_whether_the_store_is_back_and_the_others_wait_for_its_answer() {
    let mut breaker = open();
    let now = breaker.admit(HOUR, pace(2)).unwrap_err().until;
    assert_eq!(breaker.admit(now, pace(2)), Ok(()), "the probe");
    let wait = breaker.admit(now, pace(2)).unwrap_err();
    assert!(wait.turn > now);
    breaker.answered();
    assert_eq!(breaker.admit(now, pace(2)), Ok(()));
}

#[test]
fn pauses_grow_to_the_longest_and_begin_anew_after_an_answer() {
    let mut breaker = open();
    let mut now = HOUR;
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let until = breaker.admit(now, pace(1)).unwrap_err().until;
        pauses.push((until - now).as_secs());
        now = until;
        assert_eq!(breaker.admit(now, pace(1)), Ok(()));
        breaker.failed(now, None, NONE);
    }
    assert_eq!(pauses, [2, 4, 8, 15, 15, 15], "halves of 4 s, doubled up to 30 s, without chance");
    breaker.answered();
    (0..THRESHOLD).for_each(|_| breaker.failed(now, None, NONE));
    assert_eq!(breaker.admit(now, pace(1)).unwrap_err().until, now + FIRST_PAUSE / 2);
}

#[test]
fn a_probe_that_tells_nothing_keeps_nobody_for_ever() {
    let mut breaker = open();
    let now = breaker.admit(HOUR, pace(2)).unwrap_err().until;
    assert_eq!(breaker.admit(now, pace(2)), Ok(()));
    assert!(breaker.admit(now + PROBE_DEADLINE - SECOND, pace(2)).is_err());
    assert_eq!(breaker.admit(now + PROBE_DEADLINE, pace(2)), Ok(()));
}

#[test]
fn a_pause_that_the_store_asked_for_is_kept_by_all_from_the_first_time() {
    let mut breaker = Breaker::default();
    breaker.failed(HOUR, Some(90 * SECOND), NONE);
    for at in 0..90 {
        assert!(breaker.admit(HOUR + at * SECOND, pace(100)).is_err(), "{at} s");
    }
    assert_eq!(breaker.admit(HOUR + 90 * SECOND, pace(100)), Ok(()));
    // A shorter one that somebody else was told takes nothing from it.
    let mut breaker = Breaker::default();
    breaker.failed(HOUR, Some(90 * SECOND), NONE);
    breaker.failed(HOUR, Some(SECOND), NONE);
    breaker.failed(HOUR, None, NONE);
    assert!(breaker.admit(HOUR + 89 * SECOND, pace(1)).is_err());
}

#[test]
fn a_volume_alone_is_asked_for_as_soon_as_a_pause_is_over() {
    let mut breaker = open();
    let mut now = HOUR;
    while now < 3 * HOUR {
        let wait = breaker.admit(now, pace(1)).unwrap_err();
        assert_eq!(wait.turn, wait.until);
        now = wait.turn;
        assert_eq!(breaker.admit(now, pace(1)), Ok(()));
        breaker.failed(now, None, NONE);
    }
}

#[test]
fn closed_volumes_need_not_stand_in_the_long_line() {
    let mut breaker = open();
    for _ in 0..100 {
        breaker.admit(HOUR, pace(100)).unwrap_err();
    }
    let closed = Pace { latest: Duration::ZERO, ..pace(100) };
    let turns: Vec<_> = (0..3).map(|_| breaker.admit(HOUR, closed).unwrap_err().turn).collect();
    let until = HOUR + FIRST_PAUSE / 2;
    assert_eq!(turns, [until, until + URGENT_GAP, until + 2 * URGENT_GAP]);
    // Nor does one whose values would be too old by then.
    let soon = Pace { latest: HOUR + MINUTE, ..pace(100) };
    assert!(breaker.admit(HOUR, soon).unwrap_err().turn < HOUR + MINUTE);
}

#[test]
fn one_that_is_asked_for_often_does_not_wait_for_an_hour() {
    let mut breaker = open();
    for _ in 0..100 {
        breaker.admit(HOUR, pace(100)).unwrap_err();
    }
    let often = Pace { interval: SECOND, ..pace(100) };
    let wait = breaker.admit(HOUR, often).unwrap_err();
    assert!(wait.turn <= wait.until + 2 * SECOND);
}

/// A thousand volumes that ask as their refreshes are due, and again when they were told to.
fn storm(down: std::ops::Range<Duration>, retry_after: Option<Duration>) -> Vec<Duration> {
    const VOLUMES: u32 = 1_000;
    let mut breaker = Breaker::default();
    let mut due: BTreeSet<_> = (0..VOLUMES).map(|it| (HOUR * it / VOLUMES, it)).collect();
    let mut asked = Vec::new();
    while let Some((now, volume)) = due.pop_first() {
        if now > 5 * HOUR {
            break;
        }
        let pace = pace(VOLUMES as usize);
        let jitter = Jitter::from_bits(volume.wrapping_mul(0x9e37_79b9));
        let next = match breaker.admit(now, pace) {
            Err(wait) => wait.turn,
            Ok(()) => {
                asked.push(now);
                if down.contains(&now) {
                    breaker.failed(now, retry_after, jitter);
                    let own = now + SECOND + jitter.of(SECOND);
                    breaker.wait(now, pace).map_or(own, |wait| wait.turn)
                } else {
                    breaker.answered();
                    now + HOUR
                }
            }
        };
        assert!(next > now, "time stands still");
        due.insert((next, volume));
    }
    asked
}

fn most_a_minute(asked: &[Duration]) -> usize {
    let within = |minute: u32| {
        let minute = minute * MINUTE..(minute + 1) * MINUTE;
        asked.iter().filter(|at| minute.contains(at)).count()
    };
    (0..300).map(within).max().unwrap()
}

#[test]
fn while_a_store_is_down_it_is_asked_a_few_times_a_minute_and_then_at_most_twice_as_often_as_ever()
{
    let down = HOUR..HOUR + 10 * MINUTE;
    let asked = storm(down.clone(), None);
    let while_down = asked.iter().filter(|at| down.contains(at)).count();
    assert!((20..60).contains(&while_down), "{while_down} in ten minutes");
    let most = most_a_minute(&asked);
    assert!(most <= 2 * 1_000 / 60 + 1, "{most} in a minute");
}

#[test]
fn after_a_long_outage_there_is_no_burst_either() {
    let most = most_a_minute(&storm(HOUR..3 * HOUR, None));
    assert!(most <= 2 * 1_000 / 60 + 1, "{most} in a minute");
}

#[test]
fn who_is_told_to_wait_is_told_once() {
    let pause = 10 * MINUTE;
    let asked = storm(HOUR..HOUR + pause, Some(pause));
    let first = *asked.iter().find(|at| **at >= HOUR).unwrap();
    let within = first + SECOND..first + pause;
    assert_eq!(asked.iter().filter(|at| within.contains(at)).count(), 0, "the pause is obeyed");
    let most = most_a_minute(&asked);
    assert!(most <= 2 * 1_000 / 60 + 1, "{most} in a minute");
}

proptest! {
    #[test]
    fn no_turn_is_before_its_pause_and_somebody_goes_at_the_end(
        events in prop::collection::vec((0_u8..4, 0_u64..200, any::<u32>()), 1..200)
    ) {
        let (mut breaker, mut now) = (Breaker::default(), HOUR);
        let mut forbidden = Duration::ZERO;
        for (kind, seconds, bits) in events {
            now += Duration::from_secs(seconds % 20);
            let jitter = Jitter::from_bits(bits);
            match kind {
                0 => { breaker.answered(); forbidden = Duration::ZERO; }
                1 => breaker.failed(now, None, jitter),
                2 => {
                    let pause = Duration::from_secs(seconds);
                    breaker.failed(now, Some(pause), jitter);
                    forbidden = forbidden.max(now + pause);
                }
                _ => match breaker.admit(now, pace(10)) {
                    Ok(()) => prop_assert!(now >= forbidden),
                    Err(wait) => {
                        prop_assert!(wait.turn >= wait.until && wait.until > now);
                        prop_assert!(wait.until >= forbidden || now >= forbidden);
                    }
                },
            }
        }
        prop_assert!(breaker.admit(now + HOUR, pace(10)).is_ok());
    }
}
