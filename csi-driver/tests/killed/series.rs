//! One call, ended at one point after the other until it gets through.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::agent::Agent;
use crate::behaviour::Behaviour;
use crate::driver_process::{DriverProcess, log};
use crate::machine::Machine;
use crate::moment::Moment;
use crate::scene::{Scene, idle_files, nothing_is_left};
use crate::seccomp;
use crate::victim::{Deed, POD, VOLUME};

/// More await points than any call has.
const MOST_POINTS: RangeInclusive<u64> = 1..=60;

/// Kills at each await point, asleep and woken. `prepare` makes the machine, and says how many of its mounts are
/// dead.
async fn at_each_point(deed: Deed, least: u64, prepare: impl AsyncFn() -> (Machine, usize)) {
    let idle_files = idle_files().await;
    for kind in [Moment::Asleep as fn(u64) -> Moment, Moment::Woken] {
        let mut covered = 0;
        for point in MOST_POINTS {
            let (machine, dead) = prepare().await;
            let (scene, victim) = Scene::on(machine, dead, idle_files, deed, kind(point)).await;
            let fate = victim.fate().await;
            assert!(fate.is_killed(), "{fate:?}");
            converges(&scene, deed).await;
            if let Some((_, _, result)) = &fate.done {
                assert_eq!(result, "Ok(())");
                assert!(covered >= least, "{fate:?}: {}", log(&scene.machine));
                break;
            }
            covered = point;
        }
        println!("{deed:?}: killed at {covered} await points ({:?} ...)", kind(1));
        assert!(covered < *MOST_POINTS.end(), "the call never ends");
    }
}

/// The next driver gets the same request, and then lives the volume's life to its end.
async fn converges(scene: &Scene, deed: Deed) {
    let process = scene.next_driver().await;
    if deed == Deed::Unpublish {
        scene.none(&process).await;
    }
    scene.one(&process).await;
    scene.none(&process).await;
}

async fn fresh() -> (Machine, usize) {
    (Machine::new(), 0)
}

pub(crate) async fn a_publish_killed_at_each_await_point_converges_to_one_mount() {
    at_each_point(Deed::Publish, 6, fresh).await;
}

pub(crate) async fn an_unpublish_killed_at_each_await_point_converges_to_none() {
    at_each_point(Deed::Unpublish, 3, fresh).await;
}

pub(crate) async fn a_republish_killed_at_each_await_point_keeps_its_mount() {
    at_each_point(Deed::Republish, 2, fresh).await;
}

pub(crate) async fn a_dead_volume_killed_while_it_is_mounted_afresh_is_mounted_afresh() {
    let with_dead = async || {
        let machine = Machine::new();
        let process = DriverProcess::started(&machine).await;
        let agent = Agent::connected(&machine.run_dir(), "0", Behaviour::default()).await;
        machine.publish(VOLUME, POD, "first").await.unwrap();
        process.kill();
        agent.die().await;
        (machine, 1)
    };
    at_each_point(Deed::Publish, 7, with_dead).await;
}

pub(crate) async fn a_take_over_killed_at_each_pause_is_completed_or_mounted_afresh() {
    let idle_files = idle_files().await;
    let mut covered = 0;
    for pause in MOST_POINTS {
        let (scene, is_over) = take_over(idle_files, Moment::Idle(pause)).await;
        converges(&scene, Deed::Wait).await;
        if is_over {
            break;
        }
        covered = pause;
    }
    println!("take-over: killed at {covered} pauses");
    assert!((4..*MOST_POINTS.end()).contains(&covered), "{covered}");
}

/// An agent dies while another one is there. Whether the driver got through.
async fn take_over(idle_files: usize, moment: Moment) -> (Scene, bool) {
    let (mut scene, mut victim) = Scene::with_victim(idle_files, Deed::Wait, moment).await;
    let run_dir = scene.machine.run_dir();
    let old = Agent::connected(&run_dir, "old", Behaviour::default()).await;
    scene.machine.publish(VOLUME, POD, "first").await.unwrap();
    assert_eq!(old.serves(), 1, "the newest agent serves");
    victim.arm().await;
    old.die().await;
    // An error if nobody holds the mount any more.
    let served = scene.machine.who_serves(POD).await;
    let ended = victim.ends(Duration::from_millis(500)).await;
    let is_over = !ended && served.is_ok_and(|name| name == "a");
    victim.killed().await;
    scene.dead = 1;
    (scene, is_over)
}

async fn before_each_call(deed: Deed, calls: &[seccomp::Call]) {
    let idle_files = idle_files().await;
    for (number, call) in (0..).zip(calls) {
        let (scene, victim) = Scene::with_victim(idle_files, deed, Moment::Call(number)).await;
        let fate = victim.fate().await;
        assert!(fate.is_killed() && fate.done.is_none(), "{}: {fate:?}", call.name);
        converges(&scene, deed).await;
    }
    println!("{deed:?}: killed before {} system calls", calls.len());
}

pub(crate) async fn a_driver_killed_before_a_system_call_of_a_publish_converges_to_one_mount() {
    before_each_call(Deed::Publish, seccomp::PUBLISH).await;
}

pub(crate) async fn a_driver_killed_before_a_system_call_of_an_unpublish_converges_to_none() {
    before_each_call(Deed::Unpublish, seccomp::UNPUBLISH).await;
}

pub(crate) async fn a_driver_killed_at_random_converges() {
    const ROUNDS: u64 = 30;
    let idle_files = idle_files().await;
    let deeds = [Deed::Publish, Deed::Unpublish, Deed::Wait];
    let mut longest = Vec::new();
    for deed in deeds {
        longest.push(duration(idle_files, deed).await);
    }
    let (mut seed, mut through) = (0x5eed_u64, 0);
    for (round, (deed, longest)) in (0..ROUNDS).zip(deeds.into_iter().zip(longest).cycle()) {
        // xorshift
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let moment = Moment::After(seed % longest);
        let (scene, is_over) = if deed == Deed::Wait {
            take_over(idle_files, moment).await
        } else {
            let (scene, victim) = Scene::with_victim(idle_files, deed, moment).await;
            let fate = victim.fate().await;
            assert!(fate.is_killed(), "round {round}: {fate:?}");
            (scene, fate.done.is_some())
        };
        through += u64::from(is_over);
        converges(&scene, deed).await;
    }
    println!("killed at random: {ROUNDS} rounds, {through} of them after the call had ended");
    assert!(through + 5 <= ROUNDS, "{through}");
}

/// Microseconds of an undisturbed call.
async fn duration(idle_files: usize, deed: Deed) -> u64 {
    if deed == Deed::Wait {
        return 8_000;
    }
    let (_scene, victim) = Scene::with_victim(idle_files, deed, Moment::Ended).await;
    victim.fate().await.done.unwrap().1
}

/// SIGTERM at each await point: what is there when the process has left, without any other driver's help.
async fn leaving(deed: Deed, least: u64, check: impl Fn(&Scene, &str)) {
    let idle_files = idle_files().await;
    let mut covered = 0;
    for point in MOST_POINTS {
        let (scene, victim) = Scene::with_victim(idle_files, deed, Moment::Leaving(point)).await;
        let fate = victim.fate().await;
        let (_, _, result) = fate.done.as_ref().expect("a call is finished first");
        if !fate.status.success() {
            assert!(fate.is_killed(), "{fate:?}");
            break; // it got through before the signal
        }
        check(&scene, result);
        converges(&scene, deed).await;
        covered = point;
    }
    println!("{deed:?}: SIGTERM at {covered} await points");
    assert!((least..*MOST_POINTS.end()).contains(&covered), "{covered}");
}

pub(crate) async fn a_publish_under_sigterm_leaves_one_mount_or_none() {
    leaving(Deed::Publish, 6, |scene, result| match result {
        "Ok(())" => {
            assert_eq!(scene.machine.mounts().len(), 1);
            assert_eq!(scene.machine.journal(), [format!("{VOLUME}.json")]);
            assert_eq!(scene.agent.serves(), 1);
        }
        refused => {
            assert!(refused.contains("is being replaced"), "{refused}");
            nothing_is_left(&scene.machine);
        }
    })
    .await;
}

pub(crate) async fn an_unpublish_under_sigterm_leaves_none() {
    leaving(Deed::Unpublish, 3, |scene, result| {
        assert_eq!(result, "Ok(())");
        nothing_is_left(&scene.machine);
    })
    .await;
}

pub(crate) async fn what_is_left_is_found() {
    for leftover in ["target", "entry", "mount"] {
        let machine = Machine::new();
        let process = DriverProcess::started(&machine).await;
        drop(machine.request(VOLUME, POD, "")); // kubelet's directories
        nothing_is_left(&machine);
        let agent = Agent::connected(&machine.run_dir(), "a", Behaviour::default()).await;
        match leftover {
            "target" => std::fs::create_dir(machine.target(POD)).unwrap(),
            "entry" => std::fs::write(machine.path("run/volumes/x.json"), "").unwrap(),
            _ => machine.publish(VOLUME, POD, "token").await.unwrap(),
        }
        let looked = std::panic::AssertUnwindSafe(|| nothing_is_left(&machine));
        assert!(std::panic::catch_unwind(looked).is_err(), "{leftover}");
        process.kill();
        drop(agent);
    }
}
