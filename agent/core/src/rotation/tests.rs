use super::*;
use ObjectResult::{Good, Outage, Refused};
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const NONE: Jitter = Jitter(0.0);

fn policy(interval: Duration) -> RefreshPolicy {
    RefreshPolicy { interval, max_stale: HOUR, on_revoke: OnRevoke::Close }
}

fn rotation(objects: usize) -> Rotation {
    Rotation::new(policy(MINUTE), objects, Duration::ZERO, NONE)
}

#[test]
fn a_refusal_counts_only_when_it_is_confirmed() {
    let mut rotation = rotation(2);
    let at = rotation.wake_at();
    assert_eq!(rotation.observe(at, &[Good, Refused], None, NONE), []);
    assert_eq!(rotation.wake_at(), at + CONFIRM_AFTER, "it is asked again soon");
    let at = rotation.wake_at();
    assert_eq!(rotation.observe(at, &[Good, Refused], None, NONE), [Effect::Refuse(1)]);
    assert!(rotation.is_refused(1) && !rotation.is_refused(0));
    assert_eq!(rotation.freshness(), Freshness::Fresh, "the store answered");
}

#[test]
fn a_refusal_that_was_a_mistake_changes_nothing() {
    let mut rotation = rotation(1);
    rotation.observe(MINUTE, &[Refused], None, NONE);
    assert_eq!(rotation.observe(MINUTE, &[Good], None, NONE), []);
    rotation.observe(2 * MINUTE, &[Refused], None, NONE);
    assert_eq!(rotation.observe(2 * MINUTE, &[Outage], None, NONE), [Effect::BecameStale]);
    assert_eq!(rotation.observe(2 * MINUTE, &[Refused], None, NONE), [], "not twice in a row");
}

#[test]
fn only_an_attempt_that_nothing_else_asks_for_is_by_the_interval() {
    let mut rotation = rotation(1);
    assert_eq!(rotation.attempt_by_interval(), Some(MINUTE / 2));
    rotation.observe(MINUTE, &[Refused], None, NONE);
    assert_eq!(rotation.attempt_by_interval(), None, "it waits to be confirmed");
    rotation.observe(MINUTE, &[Outage], None, NONE);
    assert_eq!(rotation.attempt_by_interval(), None, "an outage lasts");
    rotation.wait_until(2 * MINUTE);
    rotation.observe(2 * MINUTE, &[Good], None, NONE);
    assert_eq!(rotation.attempt_by_interval(), Some(3 * MINUTE));
    rotation.wait_until(4 * MINUTE);
    assert_eq!(rotation.attempt_by_interval(), None, "it has a turn among others");
}

#[test]
fn an_interval_has_sixty_beats_of_a_second_at_most() {
    let beats = [MINUTE / 60, MINUTE, HOUR]
        .map(|interval| Rotation::new(policy(interval), 1, Duration::ZERO, NONE).beat());
    assert_eq!(beats, [Duration::from_secs(1) / 60, MINUTE / 60, MINUTE / 60]);
}

#[test]
fn a_refused_object_heals_by_itself() {
    let mut rotation = rotation(1);
    rotation.observe(MINUTE, &[Refused], None, NONE);
    rotation.observe(MINUTE, &[Refused], None, NONE);
    assert_eq!(rotation.observe(2 * MINUTE, &[Good], None, NONE), [Effect::Restore(0)]);
    assert!(!rotation.is_refused(0));
}

#[test]
fn an_outage_is_bridged_then_closed_then_healed_with_one_event_each() {
    let mut rotation = rotation(1);
    let mut effects = Vec::new();
    let mut now = Duration::ZERO;
    while now < HOUR + MINUTE {
        now = rotation.wake_at();
        effects.extend(rotation.pass(now));
        if rotation.attempt_is_due(now) {
            effects.extend(rotation.observe(now, &[Outage], None, NONE));
        }
    }
    assert_eq!(effects, [Effect::BecameStale, Effect::Close]);
    assert_eq!(rotation.freshness(), Freshness::Closed);
    let healed = rotation.observe(now, &[Good], None, NONE);
    assert_eq!(healed, [Effect::Open, Effect::BecameFresh]);
}

#[test]
fn values_close_exactly_at_max_stale() {
    let mut rotation =
        Rotation::new(RefreshPolicy { max_stale: MINUTE, ..policy(HOUR) }, 1, Duration::ZERO, NONE);
    assert_eq!(rotation.wake_at(), MINUTE);
    assert_eq!(rotation.pass(MINUTE - Duration::from_millis(1)), []);
    assert_eq!(rotation.pass(MINUTE), [Effect::BecameStale, Effect::Close]);
}

#[test]
fn another_policy_counts_from_the_next_attempt_on() {
    let mut rotation = rotation(1);
    let second = Duration::from_secs(1);
    let first = rotation.wake_at();
    let shorter = RefreshPolicy { max_stale: 10 * second, ..policy(second) };
    rotation.follow(shorter);
    assert_eq!(rotation.wake_at(), first.min(10 * second), "the attempt that was to come");
    assert_eq!(rotation.stale_at(), 10 * second);
    rotation.observe(5 * second, &[Good], None, NONE);
    assert_eq!(
        rotation.wake_at(),
        6 * second,
        "the second attempt has no place of its own any more"
    );
}

#[test]
fn the_second_attempt_keeps_its_place_though_the_first_one_came_earlier() {
    let early = Duration::from_secs(2);
    let mut rotation = Rotation::new(policy(MINUTE), 1, Duration::ZERO, Jitter(0.5));
    let first = rotation.wake_at();
    rotation.observe(first - early, &[Good], None, NONE);
    assert_eq!(rotation.wake_at(), 2 * first);
    // But no pause is longer than the interval, and none shorter than half of it.
    let mut rotation = Rotation::new(policy(MINUTE), 1, Duration::ZERO, Jitter(0.5));
    rotation.observe(2 * first - early, &[Good], None, NONE);
    assert_eq!(rotation.wake_at(), 2 * first - early + MINUTE);
    let mut rotation = Rotation::new(policy(MINUTE), 1, Duration::ZERO, Jitter(0.5));
    rotation.attempt_at(early);
    rotation.observe(early, &[Good], None, NONE);
    assert_eq!(rotation.wake_at(), early + MINUTE);
}

#[test]
fn until_max_stale_lets_a_refusal_wait_for_age() {
    let policy = RefreshPolicy { on_revoke: OnRevoke::UntilMaxStale, ..policy(MINUTE) };
    let mut rotation = Rotation::new(policy, 1, Duration::ZERO, NONE);
    rotation.observe(MINUTE, &[Refused], None, NONE);
    rotation.observe(2 * MINUTE, &[Refused], None, NONE);
    assert!(!rotation.is_refused(0));
    assert_eq!(rotation.freshness(), Freshness::Stale);
    assert!(rotation.pass(HOUR).contains(&Effect::Close));
}

#[test]
fn a_pause_that_the_store_asked_for_is_kept() {
    let mut rotation = rotation(1);
    let pause = Duration::from_secs(90);
    rotation.observe(MINUTE, &[Outage], Some(pause), NONE);
    assert_eq!(rotation.next, MINUTE + pause);
}

#[test]
fn what_an_attempt_takes_is_part_of_the_interval_but_for_a_store_that_needs_most_of_it() {
    let second = Duration::from_secs(1);
    let asked_for = |seconds: f64| {
        let mut rotation = Rotation::new(policy(second), 1, Duration::ZERO, Jitter::from_bits(0));
        // The second attempt comes after twice the first pause.
        let mut begun = Duration::from_millis(500);
        for _ in 0..3 {
            rotation.begins(begun);
            let answered = begun + Duration::from_secs_f64(seconds);
            rotation.observe(answered, &[Good], None, Jitter::from_bits(0));
            begun = rotation.wake_at();
        }
        let before = begun;
        rotation.begins(begun);
        let answered = begun + Duration::from_secs_f64(seconds);
        rotation.observe(answered, &[Good], None, Jitter::from_bits(0));
        rotation.wake_at() - before
    };
    assert_eq!(asked_for(0.0), second);
    assert_eq!(asked_for(0.25), second);
    assert_eq!(asked_for(3.0), Duration::from_millis(3_500));
}

#[test]
fn a_thousand_volumes_ask_evenly_and_once_an_interval() {
    let mut attempts = Vec::new();
    for volume in 0..1_000_u32 {
        let jitter = Jitter::from_bits(volume.wrapping_mul(0x9e37_79b9));
        let mut rotation = Rotation::new(policy(HOUR), 1, Duration::ZERO, jitter);
        while rotation.wake_at() < 4 * HOUR {
            let now = rotation.wake_at();
            attempts.push(now);
            rotation.observe(now, &[Good], None, jitter);
        }
    }
    for hour in 1..3 {
        let within = |at: &&Duration| **at >= hour * HOUR && **at < (hour + 1) * HOUR;
        assert_eq!(attempts.iter().filter(within).count(), 1_000);
    }
    for minute in 60..180 {
        let within = |at: &&Duration| **at >= minute * MINUTE && **at < (minute + 1) * MINUTE;
        let count = attempts.iter().filter(within).count();
        assert!(count <= 25, "{count} attempts in minute {minute}");
    }
}

#[test]
fn after_a_429_to_all_there_is_no_burst_above_twice_the_steady_rate() {
    let pause = 5 * MINUTE;
    let mut attempts = Vec::new();
    for volume in 0..1_000_u32 {
        let jitter = Jitter::from_bits(volume.wrapping_mul(0x9e37_79b9));
        let mut rotation = Rotation::new(policy(HOUR), 1, Duration::ZERO, jitter);
        rotation.observe(HOUR, &[Outage], Some(pause), jitter);
        assert!(rotation.next >= HOUR + pause, "the pause is obeyed");
        while rotation.next < 4 * HOUR {
            let now = rotation.next;
            attempts.push(now);
            rotation.observe(now, &[Good], None, jitter);
        }
    }
    let steady = 1_000.0 / 60.0;
    for minute in 60..240 {
        let within = |at: &&Duration| **at >= minute * MINUTE && **at < (minute + 1) * MINUTE;
        let count = attempts.iter().filter(within).count();
        assert!(
            f64::from(u32::try_from(count).unwrap()) <= 2.0 * steady + 1.0,
            "{count} in {minute}"
        );
    }
}

fn any_result() -> impl Strategy<Value = ObjectResult> {
    prop_oneof![Just(Good), Just(Refused), Just(Outage)]
}

proptest! {
    #[test]
    fn effects_alternate_and_time_never_stands_still(
        attempts in prop::collection::vec((any_result(), any::<u32>(), any::<bool>()), 1..200)
    ) {
        let mut rotation = rotation(1);
        let (mut refused, mut closed, mut stale) = (false, false, false);
        for (result, bits, busy) in attempts {
            let now = rotation.wake_at();
            let mut effects = rotation.pass(now);
            if rotation.attempt_is_due(now) {
                let pause = busy.then_some(Duration::from_secs(3));
                effects.extend(rotation.observe(now, &[result], pause, Jitter::from_bits(bits)));
            }
            for effect in effects {
                match effect {
                    Effect::Refuse(0) => { prop_assert!(!refused); refused = true; }
                    Effect::Restore(0) => { prop_assert!(refused); refused = false; }
                    Effect::Close => { prop_assert!(!closed); closed = true; }
                    Effect::Open => { prop_assert!(closed); closed = false; }
                    Effect::BecameStale => { prop_assert!(!stale); stale = true; }
                    Effect::BecameFresh => { prop_assert!(stale); stale = false; }
                    Effect::Refuse(_) | Effect::Restore(_) => prop_assert!(false, "no such object"),
                }
            }
            prop_assert!(rotation.wake_at() > now);
            prop_assert_eq!(rotation.is_refused(0), refused);
            prop_assert_eq!(rotation.freshness() == Freshness::Closed, closed);
        }
    }
}
