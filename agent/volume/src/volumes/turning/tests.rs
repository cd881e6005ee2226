use std::time::UNIX_EPOCH;

use super::*;
use sotto_core::identity::{Audience, Namespace, ServiceAccountName, StoreName};
use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;
use sotto_core::rotation::{CONFIRM_AFTER, OnRevoke};
use sotto_core::secret::SecretBytes;
use sotto_core::snapshot::{HeapMemory, SnapshotBuilder};
use sotto_store::plan::{
    Encoding, LoginPlan, ObjectPlan, OpenBaoPlan, Pick, PlanSource, ReadMethod, ReadRequest,
    SecretPath, Subject,
};
use sotto_store::session::{LeaseId, Renewed};
use sotto_store::{ObjectError, StoreError};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
/// Objects 0 and 1 are one request's, 2 is a value that is only read.
const NAMES: [&str; 3] = ["crt", "key", "value"];

fn plan(method: ReadMethod) -> VolumePlan {
    let request =
        |method, path| ReadRequest { method, path: SecretPath::parse(path).unwrap(), args: None };
    let requests = vec![request(method, "issue/x"), request(ReadMethod::Get, "secret/data/y")];
    let pick = |index: usize| Pick {
        request: index / 2,
        key: Some(NAMES[index].to_owned()),
        encoding: Encoding::Utf8,
    };
    let login = LoginPlan { role: None, mount: "jwt".to_owned(), namespace: None };
    let object = |name| ObjectPlan { path: ObjectPath::parse(name).unwrap(), mode: None };
    VolumePlan {
        store: main(),
        audience: Audience::parse("bao").unwrap(),
        subject: Subject {
            namespace: Namespace::parse("payments").unwrap(),
            service_account: ServiceAccountName::parse("checkout").unwrap(),
        },
        objects: NAMES.map(object).into(),
        limits: Limits::default(),
        warnings: Vec::new(),
        source: PlanSource::OpenBao(OpenBaoPlan {
            login,
            requests,
            picks: (0..NAMES.len()).map(pick).collect(),
        }),
    }
}

fn main() -> StoreName {
    StoreName::parse("main").unwrap()
}

fn object(index: usize, version: &str) -> Object {
    Object {
        path: ObjectPath::parse(NAMES[index]).unwrap(),
        mode: None,
        version: version.to_owned(),
        value: SecretBytes::new(version.as_bytes().to_vec()),
    }
}

fn snapshot(objects: Vec<Object>) -> Snapshot {
    let mut builder = SnapshotBuilder::new(Limits::default()).or_empty();
    objects.into_iter().for_each(|object| builder.add(object).unwrap());
    builder.build(Generation::FIRST, UNIX_EPOCH, None, &HeapMemory::default()).unwrap()
}

/// Objects 0 and 1 of the plan of what was asked.
fn lease(id: Option<&str>) -> Lease {
    let life = Renewed { duration: HOUR, since: Instant::now(), renewable: id.is_some() };
    Lease { id: id.map(LeaseId::new), life, objects: vec![0, 1] }
}

struct Bench {
    plan: VolumePlan,
    turning: Turning,
    current: Snapshot,
}

type Answer = Result<&'static str, ObjectError>;

impl Bench {
    fn new(method: ReadMethod, id: Option<&str>) -> Self {
        let plan = plan(method);
        let policy =
            RefreshPolicy { interval: HOUR, max_stale: 3 * HOUR, on_revoke: OnRevoke::Close };
        let turning = Turning::new(policy, &plan, vec![lease(id)], Generation::FIRST, token());
        let current = snapshot((0..3).map(|index| object(index, "one")).collect());
        Self { plan, turning, current }
    }

    /// Waits until an attempt is due; what it asks for.
    async fn attempt(&mut self) -> Vec<usize> {
        loop {
            tokio::time::sleep_until(self.turning.wake_at().expect("nothing is due")).await;
            assert!(self.turning.leases_due().is_nothing(), "nothing can be renewed here");
            if let Some(asked) = self.turning.due() {
                return asked.into_iter().collect();
            }
        }
    }

    /// The next one that isn't a refresh of object 2 alone, which by chance may come first.
    async fn attempt_beside_refreshes(&mut self) -> Vec<usize> {
        loop {
            let asked = self.attempt().await;
            if asked != [2] {
                return asked;
            }
            let same = self.answer(&[(2, Ok("one"))], Vec::new());
            assert!(same.is_nothing(), "what is only read is refreshed as ever");
        }
    }

    fn answer(&mut self, answers: &[(usize, Answer)], leases: Vec<Lease>) -> Consequence {
        let asked = answers.iter().map(|(index, _)| *index).collect();
        let answer = |(index, answer): &(usize, Answer)| match answer {
            Ok(version) => Ok(object(*index, version)),
            Err(error) => Err(error.clone()),
        };
        let fetch = Fetch { objects: answers.iter().map(answer).collect(), leases };
        let (plan, current) = (&self.plan, &self.current);
        self.turning.observe(&asked, Some(fetch), false, token(), plan, current)
    }
}

fn token() -> TokenLife {
    TokenLife { ttl: None, since: Instant::now(), renewable: false }
}

fn down() -> ObjectError {
    ObjectError::Store(StoreError::Sealed { store: main() })
}

fn denied() -> ObjectError {
    let subject = plan(ReadMethod::Get).subject;
    ObjectError::Denied { store: main(), subject, path: "x".to_owned() }
}

fn versions(consequence: &Consequence) -> Option<Vec<&str>> {
    let next = consequence.next.as_ref()?;
    Some(next.iter().map(|object| object.version.as_str()).collect())
}

#[tokio::test(start_paused = true)]
async fn a_certificate_and_its_key_are_read_anew_together_before_they_end() {
    let mut bench = Bench::new(ReadMethod::Put, None);
    let began = Instant::now();
    assert_eq!(bench.attempt_beside_refreshes().await, [0, 1, 2]);
    assert!((40 * MINUTE..45 * MINUTE).contains(&began.elapsed()), "{:?}", began.elapsed());
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Ok("one"))];
    let turned = bench.answer(&came, vec![lease(None)]);
    assert_eq!(versions(&turned).unwrap(), ["two", "two", "one"]);
    let turned = Instant::now();
    assert_eq!(bench.attempt_beside_refreshes().await, [0, 1, 2]);
    assert!(turned.elapsed() >= 40 * MINUTE, "they have a new life");
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_shown_although_another_object_could_not_be_read() {
    let mut bench = Bench::new(ReadMethod::Put, None);
    bench.turning.expiring.extend([0, 1]);
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Err(down()))];
    let turned = bench.answer(&came, vec![lease(None)]);
    assert_eq!(versions(&turned).unwrap(), ["two", "two", "one"]);
    assert_eq!(turned.became, Some(Freshness::Stale));
    assert_eq!(bench.attempt().await, [2]);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_that_no_generation_can_show_yet_are_kept_for_the_next() {
    let mut bench = Bench::new(ReadMethod::Put, None);
    bench.turning.expiring.extend([0, 1]);
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Ok("one"))];
    let mut turned = bench.answer(&came, vec![lease(None)]);
    let plan = bench.plan.clone();
    bench.turning.keep_back(&mut turned, &plan);
    bench.turning.turned();
    assert_eq!(bench.attempt().await, [2], "they aren't asked for again");
    let turned = bench.answer(&[(2, Ok("one"))], Vec::new());
    assert_eq!(versions(&turned).unwrap(), ["two", "two", "one"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_under_a_lease_while_all_is_closed_is_asked_for_once() {
    let mut bench = Bench::new(ReadMethod::Get, Some("lease"));
    tokio::time::sleep(4 * HOUR).await;
    assert!(bench.turning.pass().close);
    assert!(bench.turning.leases_due().is_nothing(), "nobody reads what it would be renewed for");
    assert_eq!(bench.attempt().await, [0, 1, 2]);
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Err(down()))];
    assert!(bench.answer(&came, vec![lease(Some("new"))]).is_nothing());
    tokio::time::sleep(MINUTE).await;
    assert_eq!(bench.turning.due(), Some(BTreeSet::from([2])));
    let turned = bench.answer(&[(2, Ok("one"))], Vec::new());
    assert_eq!(versions(&turned).unwrap(), ["two", "two", "one"]);
    assert!(turned.open);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_loses_its_lease_and_gets_a_new_one_when_it_heals() {
    let mut bench = Bench::new(ReadMethod::Put, None);
    bench.turning.expiring.extend([0, 1]);
    let refused = [(0, Err(denied())), (1, Err(denied())), (2, Ok("one"))];
    assert!(bench.answer(&refused, Vec::new()).is_nothing(), "not before it is confirmed");
    assert_eq!(bench.answer(&refused, Vec::new()).refuse, [0, 1]);
    assert_eq!(bench.turning.leasing.wake_at(), None);
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Ok("one"))];
    let healed = bench.answer(&came, vec![lease(None)]);
    assert_eq!(versions(&healed).unwrap(), ["two", "two", "one"]);
    assert_eq!(healed.heal, [0, 1]);
    assert!(bench.turning.leasing.wake_at().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_heals_while_another_object_cannot_be_read_is_readable_with_the_next_generation() {
    let mut bench = Bench::new(ReadMethod::Get, Some("lease"));
    for _confirmed in 0..2 {
        bench.answer(&[(2, Err(denied()))], Vec::new());
    }
    bench.turning.expiring.extend([0, 1]);
    let partly = [(0, Err(down())), (1, Err(down())), (2, Ok("one"))];
    let nothing = bench.answer(&partly, Vec::new());
    assert!(nothing.is_nothing() && nothing.heal.is_empty());
    let came = [(0, Ok("two")), (1, Ok("two")), (2, Ok("one"))];
    let healed = bench.answer(&came, vec![lease(Some("new"))]);
    assert_eq!(versions(&healed).unwrap(), ["two", "two", "one"]);
    assert_eq!(healed.heal, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_values_all_have_leases_is_not_closed_for_its_age() {
    let mut bench = Bench::new(ReadMethod::Get, Some("lease"));
    bench.turning.readable.clear();
    tokio::time::sleep(10 * HOUR).await;
    assert!(bench.turning.pass().is_nothing());
    // The lease was lost meanwhile, and the store can't be reached: that is when the age begins to count.
    bench.turning.leasing.forget(&BTreeSet::from([0, 1]));
    bench.turning.rotation.rest(10 * HOUR);
    bench.turning.expiring.extend([0, 1]);
    let down = [(0, Err(down())), (1, Err(down()))];
    assert_eq!(bench.answer(&down, Vec::new()).became, Some(Freshness::Stale));
    tokio::time::sleep(2 * HOUR).await;
    assert!(!bench.turning.pass().close);
    tokio::time::sleep(2 * HOUR).await;
    assert!(bench.turning.pass().close);
}

/// All objects read, and as they were.
const SAME: [(usize, Answer); 3] = [(0, Ok("one")), (1, Ok("one")), (2, Ok("one"))];

#[tokio::test(start_paused = true)]
async fn refreshes_by_the_interval_begin_on_beats_and_nothing_else_waits_for_one() {
    let beats = Instant::now();
    tokio::time::sleep(Duration::from_millis(17_345)).await;
    let mut bench = Bench::new(ReadMethod::Get, None);
    let policy = RefreshPolicy { interval: HOUR, max_stale: 3 * HOUR, on_revoke: OnRevoke::Close };
    bench.turning = Turning::new(policy, &bench.plan, Vec::new(), Generation::FIRST, token());
    let beat = bench.turning.rotation.beat();
    let beyond = |bench: &Bench| {
        let at = bench.turning.wake_at().unwrap();
        (at - beats).as_nanos() % beat.as_nanos()
    };
    assert_ne!(beyond(&bench), 0, "it would not be detected");
    let asked_already = |turning: &mut Turning| {
        turning.refresh_now();
        turning.keep_to_beats(beats);
        turning.is_due()
    };
    let new = Turning::new(policy, &bench.plan, Vec::new(), Generation::FIRST, token());
    assert!(asked_already(&mut { new }), "the beat that it is of was before it began");
    bench.turning.keep_to_beats(beats);
    assert_eq!(beyond(&bench), 0);
    bench.turning.spread(Jitter::from_bits(u32::MAX / 3));
    assert_eq!(beyond(&bench), 0);
    // The second refresh comes after twice the first pause; then it is the interval.
    for _ in 0..2 {
        assert_eq!(bench.attempt().await, [0, 1, 2]);
        assert!(bench.answer(&SAME, Vec::new()).is_nothing());
        assert_eq!(beyond(&bench), 0);
    }
    bench.attempt().await;
    let begun = Instant::now();
    tokio::time::sleep(beat / 3).await;
    assert!(bench.answer(&SAME, Vec::new()).is_nothing());
    let pause = bench.turning.wake_at().unwrap() - begun;
    assert!(pause > HOUR - beat && pause <= HOUR, "{pause:?}: it comes on the same beat again");

    assert!(bench.turning.refresh_now() && bench.turning.is_due(), "who asks doesn't wait");
    bench.turning.due();
    bench.answer(&[(0, Err(denied())), (1, Ok("one")), (2, Ok("one"))], Vec::new());
    let soon = bench.turning.wake_at().unwrap() - Instant::now();
    assert_eq!(soon, CONFIRM_AFTER, "what is to be confirmed doesn't");
    bench.attempt().await;
    bench.answer(&[(0, Err(down())), (1, Ok("one")), (2, Ok("one"))], Vec::new());
    assert_ne!(beyond(&bench), 0, "nor does what comes after an outage");
}
