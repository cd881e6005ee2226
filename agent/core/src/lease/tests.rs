use super::*;
use proptest::prelude::*;

const NONE: Jitter = Jitter::from_bits(0);
const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

fn life(duration: Duration, since: Duration) -> Life {
    Life { duration, since, renewable: true }
}

fn objects(objects: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
    objects.into_iter().collect()
}

/// One lease of an hour on object 1, under a token without end.
fn one() -> (Leases, LeaseNumber) {
    let mut leases = Leases::new(None, NONE);
    let lease = leases.insert(objects([1]), life(HOUR, Duration::ZERO), true, NONE);
    (leases, lease)
}

fn under_a_token(token: Duration) -> (Leases, LeaseNumber) {
    let mut leases = Leases::new(Some(life(token, Duration::ZERO)), NONE);
    let lease = leases.insert(objects([1]), life(24 * HOUR, Duration::ZERO), true, NONE);
    (leases, lease)
}

/// Goes to the next moment that something is due.
fn next(leases: &mut Leases) -> (Duration, Due) {
    let now = leases.wake_at().expect("nothing is ever due again");
    (now, leases.due(now))
}

#[test]
fn a_lease_is_renewed_once_at_two_thirds_of_each_life() {
    let (mut leases, lease) = one();
    for period in 1..=3 {
        let (now, due) = next(&mut leases);
        assert_eq!(now, 40 * MINUTE * period);
        assert_eq!(due, Due { renew: vec![(lease, HOUR)], ..Due::default() });
        assert_eq!(leases.wake_at(), None, "it is under way");
        leases.renewed(lease, Renewal::Renewed(life(HOUR, now)), now, NONE);
    }
}

#[test]
fn near_its_maximum_it_is_read_anew_and_not_given_up_before_that() {
    let (mut leases, lease) = one();
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Renewed(life(30 * MINUTE, now)), now, NONE);
    let (at, due) = next(&mut leases);
    assert_eq!(at, now + 20 * MINUTE, "two thirds of what is left");
    assert_eq!(due, Due { reissue: objects([1]), ..Due::default() });
    assert_eq!((leases.wake_at(), leases.contains(lease)), (None, true));
    leases.replaced(&objects([1]));
    assert!(!leases.contains(lease));
}

#[test]
fn a_renewal_that_is_only_a_little_short_is_a_renewal() {
    let (mut leases, lease) = one();
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Renewed(life(55 * MINUTE, now)), now, NONE);
    assert_eq!(next(&mut leases).1.renew, [(lease, HOUR)]);
}

#[test]
fn what_cannot_be_renewed_is_read_anew_at_two_thirds() {
    let mut leases = Leases::new(None, NONE);
    let date = Life { renewable: false, ..life(HOUR, Duration::ZERO) };
    leases.insert(objects([0, 2]), date, false, NONE);
    let (now, due) = next(&mut leases);
    assert_eq!((now, due.reissue), (40 * MINUTE, objects([0, 2])));
    assert_eq!(due.renew, []);
}

#[test]
fn a_lease_that_is_gone_is_read_anew_at_once() {
    let (mut leases, lease) = one();
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Gone, now, NONE);
    assert_eq!(next(&mut leases), (now, Due { reissue: objects([1]), ..Due::default() }));
}

#[test]
fn a_renewal_that_fails_is_tried_again_and_read_anew_before_the_end() {
    let (mut leases, lease) = one();
    let mut tries = Vec::new();
    let reissued = loop {
        let (now, due) = next(&mut leases);
        if !due.reissue.is_empty() {
            break now;
        }
        tries.push(now);
        leases.renewed(lease, Renewal::Failed(None), now, NONE);
    };
    assert_eq!(reissued, 50 * MINUTE, "in time");
    assert_eq!(tries[1] - tries[0], FIRST_RETRY / 2);
    let longest = tries.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert_eq!(longest, Some(LONGEST_RETRY / 2));
}

#[test]
fn a_renewal_heals_what_failed_before() {
    let (mut leases, lease) = one();
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Failed(None), now, NONE);
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Renewed(life(HOUR, now)), now, NONE);
    assert_eq!(
        next(&mut leases),
        (now + 40 * MINUTE, Due { renew: vec![(lease, HOUR)], ..Due::default() })
    );
}

#[test]
fn a_pause_that_the_store_asks_for_is_kept_beyond_the_last_call_too() {
    let (mut leases, lease) = one();
    let (now, _) = next(&mut leases);
    leases.renewed(lease, Renewal::Failed(Some(5 * MINUTE)), now, NONE);
    let (at, due) = next(&mut leases);
    assert_eq!((at, due.renew.len()), (now + 5 * MINUTE, 1));
    leases.renewed(lease, Renewal::Failed(Some(15 * MINUTE)), at, NONE);
    let (later, due) = next(&mut leases);
    assert_eq!((later, due.reissue), (at + 15 * MINUTE, objects([1])));
}

#[test]
fn a_token_that_nothing_depends_on_is_left_alone() {
    let mut leases = Leases::new(Some(life(HOUR, Duration::ZERO)), NONE);
    assert_eq!(leases.wake_at(), None);
    let date = Life { renewable: false, ..life(100 * HOUR, Duration::ZERO) };
    leases.insert(objects([0]), date, false, NONE);
    assert_eq!(leases.due(2 * HOUR), Due::default(), "a certificate lives without it");
}

#[test]
fn the_token_is_renewed_while_a_lease_depends_on_it() {
    let (mut leases, _) = under_a_token(HOUR);
    for period in 1..=3 {
        let (now, due) = next(&mut leases);
        assert_eq!(now, 40 * MINUTE * period);
        assert_eq!(due.token, Some(TokenStep::Renew(HOUR)));
        leases.token_renewed(Renewal::Renewed(life(HOUR, now)), now, NONE);
    }
}

#[test]
fn near_the_tokens_maximum_comes_a_login_and_then_everything_is_read_anew_before_its_end() {
    let (mut leases, lease) = under_a_token(HOUR);
    let (now, _) = next(&mut leases);
    leases.token_renewed(Renewal::Renewed(life(30 * MINUTE, now)), now, NONE);
    let end = now + 30 * MINUTE;
    let (at, due) = next(&mut leases);
    assert_eq!(
        (at, due),
        (now + 20 * MINUTE, Due { token: Some(TokenStep::LogIn), ..Due::default() })
    );
    leases.token_replaced(Some(life(HOUR, at)), at, NONE);
    let (reissued, due) = next(&mut leases);
    assert_eq!((reissued, due.reissue), (at, objects([1])));
    assert!(reissued < end && leases.contains(lease));
}

#[test]
fn a_lease_that_is_due_with_the_login_waits_for_it() {
    let token = Life { renewable: false, ..life(24 * HOUR, Duration::ZERO) };
    let mut leases = Leases::new(Some(token), NONE);
    leases.insert(objects([1]), life(24 * HOUR, Duration::ZERO), true, NONE);
    assert_eq!(next(&mut leases).1, Due { token: Some(TokenStep::LogIn), ..Due::default() });
}

#[test]
fn a_login_that_fails_is_tried_again_and_at_the_tokens_end_everything_is_read_anew() {
    let token = Life { renewable: false, ..life(HOUR, Duration::ZERO) };
    let mut leases = Leases::new(Some(token), NONE);
    let lease = leases.insert(objects([1]), life(24 * HOUR, Duration::ZERO), true, NONE);
    let mut logins = 0;
    let reissued = loop {
        let (now, due) = next(&mut leases);
        match due.token {
            Some(step) => {
                assert_eq!(step, TokenStep::LogIn);
                logins += 1;
                leases.login_failed(None, now, NONE);
            }
            None => break (now, due.reissue),
        }
    };
    assert_eq!(reissued, (HOUR, objects([1])));
    assert!((20..200).contains(&logins), "{logins} in twenty minutes");
    assert_eq!((leases.wake_at(), leases.contains(lease)), (None, true));
    leases.token_replaced(Some(life(HOUR, HOUR)), HOUR, NONE);
    leases.replaced(&objects([1]));
    assert_eq!(leases.wake_at(), None, "nothing depends on the new one yet");
}

#[test]
fn a_token_that_is_gone_takes_what_depends_on_it_along() {
    let (mut leases, _) = under_a_token(HOUR);
    let (now, _) = next(&mut leases);
    leases.token_renewed(Renewal::Gone, now, NONE);
    assert_eq!(next(&mut leases), (now, Due { reissue: objects([1]), ..Due::default() }));
}

#[test]
fn what_is_refused_is_no_longer_prolonged() {
    let mut leases = Leases::new(None, NONE);
    let lease = leases.insert(objects([1, 2]), life(HOUR, Duration::ZERO), true, NONE);
    leases.forget(&objects([1]));
    assert!(leases.contains(lease), "the other object still lives by it");
    leases.forget(&objects([2]));
    assert_eq!((leases.contains(lease), leases.wake_at()), (false, None));
}

#[test]
fn a_life_that_is_over_when_it_begins_asks_for_no_storm() {
    let mut leases = Leases::new(None, NONE);
    let dead = Life { renewable: false, ..life(Duration::ZERO, HOUR) };
    leases.insert(objects([1]), dead, false, NONE);
    assert_eq!(leases.wake_at(), Some(HOUR + PAUSE_WITHOUT_LIFE.mul_f64(2.0 / 3.0)));
}

proptest! {
    /// Whatever the store answers, what is under a lease is prolonged or read anew before its end.
    #[test]
    fn nothing_is_ever_too_late(
        answers in prop::collection::vec((0_u8..5, any::<u32>()), 1..60),
        seconds in 3_u64..100_000,
        token in 3_u64..100_000,
    ) {
        let length = Duration::from_secs(seconds);
        let token = life(Duration::from_secs(token), Duration::ZERO);
        let mut leases = Leases::new(Some(token), NONE);
        let mut lease = leases.insert(objects([0]), life(length, Duration::ZERO), true, NONE);
        let (mut end, mut last) = (length, Duration::ZERO);
        for (answer, bits) in answers {
            let jitter = Jitter::from_bits(bits);
            let (now, due) = next(&mut leases);
            prop_assert!(now >= last && now <= end, "{now:?} after {last:?}, end {end:?}");
            last = now;
            match due.token {
                Some(TokenStep::Renew(asked)) => {
                    leases.token_renewed(renewal(answer, asked, now), now, jitter);
                }
                Some(TokenStep::LogIn) if answer == 0 => {
                    leases.login_failed(None, now, jitter);
                }
                Some(TokenStep::LogIn) => leases.token_replaced(Some(Life { since: now, ..token }), now, jitter),
                None => {}
            }
            for (number, asked) in due.renew {
                let renewal = renewal(answer, asked, now);
                if let Renewal::Renewed(life) = renewal {
                    end = life.since + life.duration;
                }
                leases.renewed(number, renewal, now, jitter);
            }
            if !due.reissue.is_empty() {
                leases.replaced(&due.reissue);
                lease = leases.insert(objects([0]), life(length, now), true, jitter);
                end = now + length;
            }
            prop_assert!(leases.contains(lease));
        }
    }
}

fn renewal(answer: u8, asked: Duration, now: Duration) -> Renewal {
    match answer {
        0 => Renewal::Failed(None),
        1 => Renewal::Gone,
        2 => Renewal::Renewed(life(asked / 2, now)),
        _ => Renewal::Renewed(life(asked, now)),
    }
}
