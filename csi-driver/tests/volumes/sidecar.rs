//! An injected pod's two volumes, from their publishes to their ends; its sidecar is played by the tests.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sotto_handoff::link::CallError;
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code as HandoffCode, Resolve, Retire};
use sotto_handoff::refusal::Refusal;
use tonic::Code;

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::{Machine, eventually};

const POD: &str = "uid-1";

/// A machine with sotto-node; its tests run in no pod's control group.
async fn machine() -> (Machine, Agent) {
    let machine = Machine::started_with(|settings| settings.development = true).await;
    let node = Agent::connected(&machine.run_dir(), "node", Behaviour::default()).await;
    (machine, node)
}

async fn sidecar(machine: &Machine, instance: &str) -> Agent {
    let handoff = machine.target_of(POD, "handoff");
    Agent::sidecar(&handoff, instance, Behaviour::default()).await.unwrap()
}

/// What the application reads.
async fn read(machine: &Machine) -> std::io::Result<String> {
    let file = machine.target_of(POD, "secrets").join("who");
    tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await.unwrap()
}

async fn served(machine: &Machine) {
    let driver = machine.app().driver();
    eventually("the sidecar serves", || {
        let mut volumes = driver.volumes.all();
        volumes.retain(|volume| volume.id.as_str() == "csi-s");
        volumes.iter().any(|volume| volume.server().is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_serves_what_was_mounted_without_it_in_either_order() {
    for order in [["secrets", "handoff"], ["handoff", "secrets"]] {
        let (machine, node) = machine().await;
        for volume in order {
            machine.inject(&format!("csi-{volume}"), POD, volume).await.unwrap();
            machine.inject(&format!("csi-{volume}"), POD, volume).await.unwrap();
        }
        let resolved = Asked::Resolve {
            volume: "csi-secrets".to_owned(),
            pod: POD.to_owned(),
            class: "payments-db".to_owned(),
        };
        assert_eq!(node.asked(), [resolved], "sotto-node resolves, and is given nothing");
        let agent = sidecar(&machine, "sidecar").await;
        assert_eq!(read(&machine).await.unwrap(), "sidecar");
        let prepare = Asked::Prepare {
            volume: "csi-secrets".to_owned(),
            tokens: String::new(),
            group: Some(2_000),
        };
        assert_eq!(agent.asked()[0], prepare);
        assert_eq!(node.prepares(), 0);
        assert_eq!(machine.mounts().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_shown_read_only_and_alone() {
    let (machine, _node) = machine().await;
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let shown = machine.target_of(POD, "handoff");
    let names: Vec<_> =
        std::fs::read_dir(&shown).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["handoff.sock"]);
    let mode = std::fs::metadata(shown.join("handoff.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let error = std::fs::write(shown.join("planted"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    machine.eject("csi-h", POD, "handoff").await.unwrap();
    machine.eject("csi-h", POD, "handoff").await.unwrap();
    assert!(!shown.exists() && machine.mounts().is_empty());
    assert!(std::fs::read_dir(machine.path("run/pods")).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_pod_is_refused_and_a_class_that_cannot_be_used_says_so() {
    let machine = Machine::started().await;
    let reason = "no SecretProviderClass payments-db in namespace payments";
    let refusing = Behaviour {
        refuse_resolve: Some(Refusal::new(HandoffCode::NotFound, reason)),
        ..Behaviour::default()
    };
    let _node = Agent::connected(&machine.run_dir(), "node", refusing).await;
    let status = machine.inject("csi-s", POD, "secrets").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, reason));
    let mut request = machine.injected("csi-s", POD, "secrets");
    let key = "csi.storage.k8s.io/serviceAccount.tokens";
    request.secrets.insert(key.to_owned(), "canary".to_owned());
    let status = machine.send_injected(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("tokenRequests"), "{status}");
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_starts_again_is_given_the_connection_again() {
    let (machine, _node) = machine().await;
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    for instance in ["first", "second", "third"] {
        let agent = sidecar(&machine, instance).await;
        assert_eq!(read(&machine).await.unwrap(), instance);
        agent.die().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sidecar_is_refused_and_told_of() {
    let (machine, node) = machine().await;
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let _first = sidecar(&machine, "first").await;
    served(&machine).await;
    let handoff = machine.target_of(POD, "handoff");
    let second = Agent::sidecar(&handoff, "second", Behaviour::default()).await;
    let text = second.err().expect("one sidecar a pod").to_string();
    assert!(text.contains("one sidecar"), "{text}");
    let refused = Asked::Notice { reason: "HandoffRefused".to_owned() };
    node.wait_for(|asked| *asked == refused).await;
    assert_eq!(read(&machine).await.unwrap(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_asks_about_its_own_pod_alone() {
    let (machine, node) = machine().await;
    machine.publish("csi-node", "uid-2", "token").await.unwrap();
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let other = machine.injected("csi-other", "uid-3", "secrets");
    machine.send_injected(other).await.unwrap();
    let agent = sidecar(&machine, "sidecar").await;
    served(&machine).await;
    let refused = |body| async { agent.ask(body).await.map(|_| ()) };
    for volume_id in ["csi-node", "csi-other", "csi-nothing"] {
        let retire = Retire { volume_id: volume_id.to_owned(), generation: 1 };
        let resolve = Resolve { volume_id: volume_id.to_owned(), ..Resolve::default() };
        for body in [Body::Retire(retire), Body::Resolve(resolve)] {
            let Err(CallError::Refused(refusal)) = refused(body).await else { panic!("allowed") };
            assert_eq!(refusal.code(), HandoffCode::NotFound, "{volume_id}");
        }
    }
    for body in [
        Body::Metrics(sotto_handoff::message::Metrics {}),
        Body::ConnectProvider(sotto_handoff::message::ConnectProvider::default()),
    ] {
        let Err(CallError::Refused(refusal)) = refused(body).await else { panic!("allowed") };
        assert_eq!(refusal.code(), HandoffCode::PermissionDenied);
    }
    // And sotto-node asks nothing about the sidecar's.
    let retire = Retire { volume_id: "csi-s".to_owned(), generation: 1 };
    assert!(node.ask(Body::Retire(retire)).await.is_err());
    let began = std::time::Instant::now();
    for _ in 0..2 {
        let own = Resolve { volume_id: "csi-s".to_owned(), ..Resolve::default() };
        assert!(matches!(agent.ask(Body::Resolve(own)).await.unwrap(), Body::Resolved(_)));
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "it may not hurry sotto-node");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_starts_again_gets_the_connection_back() {
    let (mut machine, node) = machine().await;
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let agent = sidecar(&machine, "sidecar").await;
    served(&machine).await;
    machine.stop().await;
    assert_eq!(read(&machine).await.unwrap(), "sidecar");
    machine.start(|settings| settings.development = true).await;
    let socket = machine.target_of(POD, "handoff").join("handoff.sock");
    agent.connect_at(&socket).await.unwrap();
    let driver = machine.app().driver();
    eventually("the driver holds the volume again", || {
        driver.volumes.all().iter().all(|volume| volume.is_held())
    })
    .await;
    agent.die().await;
    node.connect(&machine.run_dir()).await;
    let _next = sidecar(&machine, "next").await;
    assert_eq!(read(&machine).await.unwrap(), "next");
    machine.eject("csi-h", POD, "handoff").await.unwrap();
    machine.eject("csi-s", POD, "secrets").await.unwrap();
    assert!(machine.mounts().is_empty() && machine.journal().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_handoff_volume_frees_who_waits_for_the_secrets() {
    let (machine, _node) = machine().await;
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let file = machine.target_of(POD, "secrets").join("who");
    let waiting = tokio::task::spawn_blocking(move || std::fs::metadata(file).map(drop));
    machine.eject("csi-h", POD, "handoff").await.unwrap();
    let freed = tokio::time::timeout(Duration::from_secs(5), waiting).await;
    assert!(freed.expect("it waits for ever").unwrap().is_err());
    machine.eject("csi-s", POD, "secrets").await.unwrap();
    assert!(machine.mounts().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_handoff_volume_of_a_pod_is_refused() {
    let (machine, _node) = machine().await;
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    let target = machine.target_of(POD, "more");
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    let mut request = machine.injected("csi-h2", POD, "handoff");
    request.target_path = target.display().to_string();
    let status = machine.send_injected(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(!target.exists());
    assert!(machine.target_of(POD, "handoff").join("handoff.sock").exists());
}
