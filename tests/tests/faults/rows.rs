//! The table: numbers, faults and promises are those of the threat model that the project began with.

use std::time::Duration;

use sotto_tests::table::{Player, Row, Scenario};

use crate::{
    agents, chaos, driver, hostile, identity, kubelet, limits, names, network, rotation, sidecar,
    store,
};

/// Longer than any scenario takes on two busy processors.
const DEADLINE: Duration = Duration::from_secs(240);
/// The row that `make faults` leaves out, for it plays the long one.
pub(crate) const SHORT_CHAOS: &str = "all-15s";

pub(crate) const fn here(scenario: Scenario) -> Player {
    Player::Here(scenario, DEADLINE)
}

const fn row(
    number: &'static str,
    fault: &'static str,
    promise: &'static str,
    scenario: Scenario,
) -> Row {
    Row { number, fault, promise, player: here(scenario), is_quick: false }
}

/// Played by `make test` as well.
const fn quick(
    number: &'static str,
    fault: &'static str,
    promise: &'static str,
    scenario: Scenario,
) -> Row {
    Row { number, fault, promise, player: here(scenario), is_quick: true }
}

const fn elsewhere(
    number: &'static str,
    fault: &'static str,
    promise: &'static str,
    reason: &'static str,
) -> Row {
    Row { number, fault, promise, player: Player::Elsewhere(reason), is_quick: false }
}

const CLUSTER: &str = "needs an API server that calls webhooks";

/// Every row, in order.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    quick(SHORT_CHAOS, "worker, agent, driver or store killed every 2 s at random, 15 s", "0 failed reads, 0 torn values; watches and open fds survive", || Box::pin(chaos::for_a_moment())),
    Row { number: "all", fault: "worker, agent, driver or store killed every 2 s at random", promise: "0 failed reads, 0 torn values; watches and open fds survive", player: Player::Here(|| Box::pin(chaos::for_a_while()), Duration::from_secs(3_600)), is_quick: false },
    row("1", "kill -9 driver, reads running", "0 failed reads", || Box::pin(driver::is_killed())),
    row("2", "driver rolling upgrade, 100 volumes", "0 failed reads; pending mounts finish", || Box::pin(driver::is_rolled_under_a_hundred_volumes())),
    row("3", "kill -9 agent once", "reads wait, then succeed; same mount; no ENOTCONN", || Box::pin(agents::is_killed_once())),
    row("3w", "kill -9 the agent's worker", "another one serves within milliseconds, store or not", || Box::pin(agents::worker_is_killed())),
    row("3s", "kill -9 a sidecar 10 times", "0 failed reads", || Box::pin(sidecar::is_killed_ten_times())),
    row("4", "agent out of memory (137)", "as 3; the log names it", || Box::pin(agents::is_out_of_memory())),
    row("5", "agent crash loop", "error after request_deadline, clear reason; no D state; heals", || Box::pin(agents::crashes_again_and_again())),
    quick("6", "both holders of a connection lost", "mounted afresh; HostToContainer mounts heal, others told by event; pod deletable", || Box::pin(agents::and_driver_are_both_lost())),
    row("6b", "both DaemonSets rolled at the same time", "0 failed reads", || Box::pin(agents::and_driver_are_rolled_together())),
    row("6c", "sidecar never answers the driver's rename; driver killed", "driver restarts", || Box::pin(sidecar::never_answers_a_rename_while_the_driver_is_killed())),
    row("7", "agent dies in mid-request", "resent; no lost caller", || Box::pin(agents::dies_in_mid_request())),
    quick("7r", "worker killed during a rotation's operations", "nothing stuck; the rotation completes exactly once", || Box::pin(rotation::whose_worker_is_killed())),
    row("7d", "driver killed during a rotation's operations", "nothing stuck; the rotation completes exactly once", || Box::pin(rotation::whose_driver_is_killed())),
    row("8", "sidecar never starts", "event within 1 min; fd released; pod deletable", || Box::pin(sidecar::never_starts())),
    row("9", "agent stopped (SIGSTOP) for 10 s", "reads wait; driver and other calls unaffected", || Box::pin(agents::is_stopped_for_a_while())),
    row("9u", "agent stopped (SIGSTOP), its volume unpublished", "<= 10 s; no D state; stopped for good: replaced", || Box::pin(agents::is_stopped_while_a_volume_ends())),
    row("10, 11", "kubelet, container runtime restart", "no remount, no read error", || Box::pin(kubelet::restarts())),
    elsewhere("12", "node reboot", "clean state; fresh mounts", "needs a reboot"),
    row("13", "stale socket, directory, journal entry, dead mount, symlink left behind", "cleaned idempotently; a symlink is refused, and never followed", || Box::pin(driver::finds_what_is_stale())),
    row("14", "driver killed at any moment of publish and unpublish", "no orphan mount", || Box::pin(driver::is_killed_while_it_publishes())),
    row("15", "50 concurrent publishes of one volume", "one mount; the rest OK or ABORTED", || Box::pin(kubelet::publishes_fifty_times_at_once())),
    row("16", "republish with the store down", "OK; mount untouched", || Box::pin(kubelet::republishes_while_the_store_is_down())),
    row("17", "unpublish twice, or of the never published", "OK", || Box::pin(kubelet::unpublishes_twice_and_the_unknown())),
    row("18", "unpublish with open files", "forced, <= 10 s", || Box::pin(kubelet::unpublishes_under_open_files())),
    row("19", "force delete, grace 0, nobody serves", "no Terminating or D-state leak", || Box::pin(kubelet::deletes_by_force())),
    row("20", "driver absent at pod delete", "completes when it returns", || Box::pin(kubelet::ends_a_pod_while_the_driver_is_away())),
    row("21", "store down at pod start", "waits, backs off, clear event", || Box::pin(store::is_down_at_a_pods_start())),
    row("22", "store down for long while running", "last good value until max-stale, then fails closed", || Box::pin(store::is_down_for_long())),
    row("23", "store slow by 30 s", "a read of a served file is unaffected", || Box::pin(store::is_slow())),
    row("24", "store 429 / 503", "backoff, Retry-After kept, no herd", || Box::pin(store::limits_its_rate())),
    row("25", "store sealed, failover", "reconnects without restart", || Box::pin(store::is_sealed_or_fails_over())),
    row("26", "403 after a policy was removed", "revoked within one interval, confirmed; open files too", || Box::pin(store::withdraws_a_policy())),
    row("27", "secret deleted", "EACCES within one interval once confirmed (optional object: ENOENT)", || Box::pin(store::deletes_a_secret())),
    row("28", "rotation under 1,000 readers", "every read wholly old or wholly new; a set of files consistent", || Box::pin(rotation::under_a_thousand_readers())),
    row("29, 46", "rotation with a long-open fd; subPath mount", "one generation per open (subPath: until the grace has passed); updates visible", || Box::pin(rotation::with_a_long_open_file_and_a_sub_path())),
    row("30", "lease that can't be prolonged: refused, or at its maximum", "fetched anew before expiry; metric to alert on", || Box::pin(store::renews_no_lease())),
    row("31", "token refreshed", "no gap", || Box::pin(identity::token_is_refreshed())),
    row("32", "API server down", "reads unaffected; logins until the token's exp", || Box::pin(identity::api_server_is_away())),
    row("33", "signing key rotated", "new kid accepted, old until exp", || Box::pin(identity::signing_key_is_rotated())),
    row("34", "pod deleted, token replayed", "refused (TokenReview)", || Box::pin(identity::token_of_a_deleted_pod_is_replayed())),
    row("35", "wrong aud, node, pod uid", "refused, audited", || Box::pin(identity::token_is_of_another())),
    row("36", "store's CA and certificate, or our client certificate rotated", "hot reload, 0 errors with overlap", || Box::pin(network::has_other_certificates())),
    row("37", "expired server certificate, MITM", "hard failure; token never sent", || Box::pin(network::leads_to_an_impostor())),
    row("38", "clock skew 5 min, of the node or of the API server (TokenReview)", "clear error beyond the leeway", || Box::pin(identity::clock_is_skewed())),
    row("39", "cut network", "recovers; metric", || Box::pin(network::is_cut())),
    row(names::ROW, "DNS failure; the store's name gets another address", "recovers; metric", || Box::pin(names::is_lost_and_moves())),
    row("40", "half-open TCP", "detected within the keepalive bound", || Box::pin(network::is_half_open())),
    elsewhere("41", "webhook down", "unrelated pods start; ours refused, never without secrets", CLUSTER),
    elsewhere("42", "webhook certificate expiry", "overlap; 0 failed calls", CLUSTER),
    elsewhere("43", "another webhook strips restartPolicy", "refused with a message", CLUSTER),
    row("45", "fsGroup, non-root, several uids", "right mode and owner; EACCES else", || Box::pin(kubelet::starts_pods_of_several_users())),
    row("47", "init container reads a secret", "available", || Box::pin(kubelet::starts_an_init_container())),
    row("48", "drain, app takes 10 min", "readable to its last exit", || Box::pin(sidecar::serves_until_the_last_exit())),
    row("49", "Job completes", "pod completes without delay", || Box::pin(sidecar::lets_a_job_complete())),
    row("50", "10,000 secrets, a 1 MiB value, huge listing", "limits enforced, memory bounded", || Box::pin(limits::of_size_and_number())),
    row("51", "250 pods at once", "p99 stated; store's rate bounded", || Box::pin(store::is_asked_by_many_pods_at_once())),
    elsewhere("52", "24 h soak with dead mounts", "fds, threads, memory flat", "`make soak MINUTES=...`"),
    row("53", "disk full", "nothing written; reads fine", || Box::pin(limits::of_the_disk())),
    row("54", "memlock 64 KiB", "starts degraded, says so, by metric too", || Box::pin(limits::of_locked_memory())),
    row("55", "core dump, abort, heap scan, log canary", "no canary secret or token anywhere", || Box::pin(limits::keep_a_secret_in())),
    row("56", "symlink swap race on the driver's paths", "no host write or read", || Box::pin(hostile::symlinks_race_with_the_driver())),
    row("57", "another container takes the handoff socket", "refused by peer check", || Box::pin(hostile::peer_takes_the_handoff_socket())),
    row("59", "`..`, NUL, 256 bytes, unicode in names", "refused", || Box::pin(limits::of_names())),
    row("60", "malformed CSI, handoff, HTTP bytes", "no panic", || Box::pin(hostile::bytes_are_malformed())),
    row("61", "new driver with another agent's version", "negotiated; N +/- 1 works", || Box::pin(hostile::agent_is_of_another_version())),
    row("62", "serviceAccountTokenInSecrets flipped mid-rollout", "both places read", || Box::pin(identity::tokens_move())),
    row("65", "csi-sanity; SIGTERM at any moment of publish and unpublish", "passes; no partial state", || Box::pin(driver::is_terminated_while_it_publishes())),
];
