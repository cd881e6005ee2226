//! Which pod a process is of, by its control group: kubelet names a pod's by the pod's uid.
//!
//! Invariant: only `/proc/<pid>/cgroup` is read, and never mountinfo, whose paths a pod can choose. What was read
//! counts only if the process that made the connection still ran afterwards.

use std::fs::File;
use std::io::{self, Read};

use sotto_core::identity::PodUid;
use sotto_handoff::packet::Connection;
use sotto_handoff::peer::{self, PeerError};

/// Largest file; each of at most a dozen lines is a path.
const MAX_CGROUP_BYTES: u64 = 64 << 10;
/// Users of a pod with a user namespace of its own: kubelet gives each so many, from a multiple of that on.
const USERS_OF_A_POD: u32 = 1 << 16;

/// Why a process isn't the pod's sidecar.
#[derive(Debug, thiserror::Error)]
pub enum StrangerError {
    /// Another user.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// It can't be seen.
    #[error("its process isn't visible here: the driver needs hostPID: true")]
    Unseen,
    /// It has ended, or it can't be asked about.
    #[error("its process has ended, or its control group can't be read: {0}")]
    Gone(#[from] io::Error),
    /// It is in no pod.
    #[error("process {0} is in no pod's control group")]
    InNoPod(u32),
    /// It is in another pod.
    #[error("process {pid} is of pod {seen}, and the socket is of pod {wanted}")]
    OtherPod {
        /// Its id.
        pid: u32,
        /// Its pod.
        seen: String,
        /// The socket's pod.
        wanted: PodUid,
    },
}

/// Who may connect.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The socket's pod.
    pub pod: PodUid,
    /// The sidecars' user.
    pub uid: u32,
    /// The pod has a user namespace of its own.
    pub own_users: bool,
    /// In development a process in no pod at all is let in.
    pub development: bool,
}

impl Admission {
    /// Checks who is at the other end.
    ///
    /// # Errors
    /// Why it isn't the pod's sidecar.
    pub fn check(&self, connection: &Connection) -> Result<(), StrangerError> {
        let credentials = peer::credentials(connection)?;
        if !self.is_user(credentials.uid) {
            return Err(PeerError::WrongUid { seen: credentials.uid, wanted: self.uid }.into());
        }
        let Some(process) = peer::process(connection)? else {
            return if self.development { Ok(()) } else { Err(StrangerError::Unseen) };
        };
        let groups = read_groups(process.pid)?;
        if !process.is_running()? {
            return Err(io::Error::from(io::ErrorKind::NotFound).into());
        }
        match pod_of(&groups) {
            Some(seen) if seen == self.pod.as_str() => Ok(()),
            Some(seen) => {
                Err(StrangerError::OtherPod { pid: process.pid, seen, wanted: self.pod.clone() })
            }
            None if self.development => Ok(()),
            None => Err(StrangerError::InNoPod(process.pid)),
        }
    }

    fn is_user(&self, uid: u32) -> bool {
        uid == self.uid || (self.own_users && uid % USERS_OF_A_POD == self.uid)
    }
}

fn read_groups(pid: u32) -> io::Result<String> {
    let mut groups = String::new();
    File::open(format!("/proc/{pid}/cgroup"))?
        .take(MAX_CGROUP_BYTES)
        .read_to_string(&mut groups)?;
    Ok(groups)
}

/// The pod whose control group is named in a file like `/proc/<pid>/cgroup`: the outermost, since a container can
/// make groups of any name beneath its own.
#[must_use]
pub fn pod_of(groups: &str) -> Option<String> {
    groups.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        path.split('/').find_map(pod_named_by)
    })
}

/// `pod<uid>` of the cgroupfs driver; `kubepods-burstable-pod<uid>.slice`, the uid's hyphens as underscores, of the
/// systemd driver.
fn pod_named_by(group: &str) -> Option<String> {
    let (name, is_slice) = match group.strip_suffix(".slice") {
        Some(name) => (name.strip_prefix("kubepods-")?, true),
        None => (group, false),
    };
    let name = match is_slice {
        true => ["burstable-", "besteffort-"]
            .iter()
            .find_map(|qos| name.strip_prefix(qos))
            .unwrap_or(name),
        false => name,
    };
    let uid = name.strip_prefix("pod")?;
    let uid = if is_slice { uid.replace('_', "-") } else { uid.to_owned() };
    PodUid::parse(uid.clone()).is_ok().then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6d8ba2f1-3f66-4f0e-9c35-2f6f1c7a0d11";

    #[test]
    fn the_pod_is_found_in_what_kubelet_names() {
        let systemd = UID.replace('-', "_");
        for path in [
            format!("0::/kubepods/burstable/pod{UID}/0f3c"),
            format!("0::/kubepods/pod{UID}/0f3c"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice/cri-containerd-0f3c.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{systemd}.slice/crio-0f3c.scope"),
            format!("0::/../../kubepods-besteffort-pod{systemd}.slice/cri-containerd-0f3c.scope"),
            format!(
                "0::/system.slice/docker-1.scope/kubelet.slice/kubepods/besteffort/pod{UID}/0f3c"
            ),
            format!("12:pids:/kubepods/burstable/pod{UID}/0f3c\n1:name=systemd:/x\n"),
        ] {
            assert_eq!(pod_of(&path).as_deref(), Some(UID), "{path}");
        }
    }

    #[test]
    fn a_process_outside_of_pods_has_none() {
        for path in ["0::/", "0::/user.slice/podman.slice", "0::/system.slice/pod.service", "", "x"]
        {
            assert_eq!(pod_of(path), None, "{path}");
        }
    }

    #[test]
    fn a_group_that_a_container_made_within_its_own_is_not_believed() {
        let path = format!("0::/kubepods/burstable/pod{UID}/0f3c/podvictim");
        assert_eq!(pod_of(&path).as_deref(), Some(UID));
    }

    #[test]
    fn another_user_is_none_and_a_mapped_one_only_where_the_pod_has_its_own() {
        let pod = PodUid::parse(UID).unwrap();
        let admission = Admission { pod, uid: 65_532, own_users: false, development: false };
        assert!(admission.is_user(65_532));
        assert!(!admission.is_user(0) && !admission.is_user(3 * 65_536 + 65_532));
        let mapped = Admission { own_users: true, ..admission };
        assert!(mapped.is_user(3 * 65_536 + 65_532) && !mapped.is_user(3 * 65_536));
    }

    #[tokio::test]
    async fn only_development_takes_a_process_in_no_pod() {
        let (one, _two) = Connection::pair().unwrap();
        let own = read_groups(std::process::id()).unwrap();
        assert_eq!(pod_of(&own), None, "the tests run in no pod");
        let admission = Admission {
            pod: PodUid::parse(UID).unwrap(),
            uid: rustix::process::geteuid().as_raw(),
            own_users: false,
            development: true,
        };
        admission.check(&one).unwrap();
        let strict = Admission { development: false, ..admission };
        assert!(matches!(strict.check(&one), Err(StrangerError::InNoPod(_))));
    }
}
