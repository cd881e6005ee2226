//! What only processes of their own can show: drivers killed or ended at every point of a call, agents that are
//! stopped. This binary plays those processes too, and has therefore its own runner: nothing of this is in the
//! product's binaries.
//! Needs root, or a user namespace: `tests/tools/with-mounts`.
#![expect(clippy::unwrap_used, reason = "in a test a failed step ends it")]
#![expect(clippy::print_stdout, reason = "a runner prints, and so do the processes that it starts")]

#[allow(dead_code, reason = "the driver's other tests use the rest")]
#[path = "machine/agent.rs"]
mod agent;
#[path = "killed/agent_process.rs"]
mod agent_process;
#[allow(dead_code, reason = "the driver's other tests use the rest")]
#[path = "machine/behaviour.rs"]
mod behaviour;
#[allow(dead_code, reason = "the driver's other tests use the rest")]
#[path = "machine/driver_process.rs"]
mod driver_process;
#[allow(dead_code, reason = "the driver's other tests use the rest")]
#[path = "machine/machine.rs"]
mod machine;
#[path = "machine/mini_fuse.rs"]
mod mini_fuse;
#[path = "killed/moment.rs"]
mod moment;
#[allow(dead_code, reason = "the driver's other tests use the rest")]
#[path = "machine/readers.rs"]
mod readers;
#[path = "killed/runner.rs"]
mod runner;
#[path = "killed/scene.rs"]
mod scene;
#[path = "killed/seccomp.rs"]
mod seccomp;
#[path = "killed/series.rs"]
mod series;
#[path = "killed/stopped.rs"]
mod stopped;
#[path = "killed/victim.rs"]
mod victim;

use std::process::ExitCode;

use runner::{Test, tests};
use sotto_csi::mount_health;

const TESTS: &[Test] = tests![
    series::a_publish_killed_at_each_await_point_converges_to_one_mount,
    series::an_unpublish_killed_at_each_await_point_converges_to_none,
    series::a_republish_killed_at_each_await_point_keeps_its_mount,
    series::a_dead_volume_killed_while_it_is_mounted_afresh_is_mounted_afresh,
    series::a_take_over_killed_at_each_pause_is_completed_or_mounted_afresh,
    series::a_driver_killed_before_a_system_call_of_a_publish_converges_to_one_mount,
    series::a_driver_killed_before_a_system_call_of_an_unpublish_converges_to_none,
    series::a_driver_killed_at_random_converges,
    series::a_publish_under_sigterm_leaves_one_mount_or_none,
    series::an_unpublish_under_sigterm_leaves_none,
    series::what_is_left_is_found,
    stopped::readers_that_race_with_its_wake_up_get_their_file_or_an_error_and_none_hangs,
    stopped::its_readers_get_an_error_at_the_deadline_and_are_served_when_it_wakes,
    stopped::without_pings_its_readers_would_wait_for_ever,
    stopped::it_keeps_no_volume_from_being_unpublished,
    stopped::its_volumes_go_to_another_agent_only_when_it_has_ended,
    stopped::an_agent_of_the_version_before_is_not_taken_for_one,
    stopped::an_agent_that_answers_its_readers_is_not_taken_for_one,
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, rest)) if role == victim::ROLE => victim::run(rest),
        Some((role, rest)) if role == agent_process::ROLE => agent_process::run(rest),
        // The driver starts its helpers as `/proc/self/exe`.
        Some((role, rest)) if role == mount_health::HELPER_COMMAND => victim::mount_health(rest),
        Some(_) | None => runner::run(&arguments, TESTS),
    }
}
