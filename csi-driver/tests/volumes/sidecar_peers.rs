//! Who is let in at a pod's socket: processes of this test binary, in control groups named as kubelet names them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sotto_handoff::handshake;
use sotto_handoff::message::{Role, State, frame::Body};

use crate::agent::{Agent, Asked};
use crate::behaviour::Behaviour;
use crate::machine::{Machine, eventually};

const POD: &str = "6d8ba2f1-3f66-4f0e-9c35-2f6f1c7a0d11";
const OTHER_POD: &str = "0a1b2c3d-3f66-4f0e-9c35-2f6f1c7a0d11";
const CHILD: &str = "SOTTO_TEST_PEER_OF";
const LET_IN: &str = "let in";
const REFUSED: &str = "refused";
const CHILDS_TEST: &str = "sidecar_peers::what_the_process_at_the_socket_does";

/// A control group as kubelet makes one for a pod's container; removed on drop.
struct Group(PathBuf);

impl Group {
    fn new(pod: &str) -> Self {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let root = roots.iter().find(|root| Path::new(root).join("cgroup.procs").exists());
        let root = Path::new(root.expect("a control group hierarchy"));
        let name = format!("sotto-test-{}", std::process::id());
        let group = root.join(name).join("kubepods/burstable").join(format!("pod{pod}/c1"));
        std::fs::create_dir_all(&group).expect("control groups can be made: the tests need root");
        Self(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Up to our own top; another test's group may still be in it.
        for directory in self.0.ancestors().take(5) {
            if std::fs::remove_dir(directory).is_err() {
                return;
            }
        }
    }
}

/// The part of the other process: it is in its group before it connects.
#[tokio::test]
async fn what_the_process_at_the_socket_does() {
    let Some(what) = std::env::var_os(CHILD) else { return };
    let what = what.into_string().unwrap();
    let [group, socket, said] = what.split('|').collect::<Vec<_>>()[..] else { panic!("{what}") };
    if !group.is_empty() {
        std::fs::write(Path::new(group).join("cgroup.procs"), "0").unwrap();
    }
    let connection = sotto_handoff::socket::connect(Path::new(socket)).await.unwrap();
    let welcome = handshake::hello(&connection, Role::Sidecar, "child").await;
    std::fs::write(said, if welcome.is_ok() { LET_IN } else { REFUSED }).unwrap();
}

/// Whether a process that is in `group` is let in at the pod's socket.
async fn is_let_in(group: Option<&Group>, machine: &Machine) -> bool {
    let group = group.map(|group| group.0.display().to_string()).unwrap_or_default();
    let socket = machine.target_of(POD, "handoff").join("handoff.sock");
    let said = machine.path("said");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILDS_TEST])
        .env(CHILD, format!("{group}|{}|{}", socket.display(), said.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success());
    match std::fs::read_to_string(said).unwrap().as_str() {
        LET_IN => true,
        REFUSED => false,
        other => panic!("it says {other:?}"),
    }
}

async fn machine(development: bool) -> (Machine, Agent) {
    let machine = Machine::started_with(|settings| settings.development = development).await;
    let node = Agent::connected(&machine.run_dir(), "node", Behaviour::default()).await;
    machine.inject("csi-s", POD, "secrets").await.unwrap();
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    (machine, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_the_pod_is_let_in() {
    let (machine, _node) = machine(false).await;
    let group = Group::new(POD);
    assert!(is_let_in(Some(&group), &machine).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_pod_is_refused_and_told_of_in_development_too() {
    for development in [false, true] {
        let (machine, node) = machine(development).await;
        let group = Group::new(OTHER_POD);
        assert!(!is_let_in(Some(&group), &machine).await);
        let refused = Asked::Notice { reason: "HandoffRefused".to_owned() };
        node.wait_for(|asked| *asked == refused).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_in_no_pod_is_refused() {
    let (machine, _node) = machine(false).await;
    assert!(!is_let_in(None, &machine).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_than_the_sidecars_is_refused() {
    let machine = Machine::started_with(|settings| {
        settings.development = true;
        settings.agent_uid = 4_242;
    })
    .await;
    machine.inject("csi-h", POD, "handoff").await.unwrap();
    assert!(!is_let_in(None, &machine).await);
    let group = Group::new(POD);
    assert!(!is_let_in(Some(&group), &machine).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_learns_whether_the_pod_is_served_and_takes_nobodys_place() {
    let (machine, _node) = machine(true).await;
    let handoff = machine.target_of(POD, "handoff");
    let probe = async || {
        let probe = Agent::probe(&handoff).await;
        match probe.ask(Body::State(State {})).await.unwrap() {
            Body::StateIs(state) => state,
            other => panic!("{other:?}"),
        }
    };
    let state = probe().await;
    assert!(!state.served && !state.reason.is_empty());
    let _sidecar = Agent::sidecar(&handoff, "one", Behaviour::default()).await.unwrap();
    let driver = machine.app().driver();
    eventually("the sidecar serves", || {
        driver.volumes.all().iter().all(|volume| volume.server().is_some())
    })
    .await;
    assert!(probe().await.served);
    let probe = Agent::probe(&handoff).await;
    let metrics = Body::Metrics(sotto_handoff::message::Metrics {});
    assert!(probe.ask(metrics).await.is_err(), "a probe asks for State only");
}
