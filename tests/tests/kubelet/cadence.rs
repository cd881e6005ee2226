//! When kubelet calls: two or three times at a pod's start, then again and again; and a call that it gave up.

use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use sotto_dev::kubelet::{Call, CallKind, volume_id};
use sotto_dev::store::{Fault, Operation};
use sotto_tests::files::{self, blocking};
use tonic::Code;

use super::{SOON, scene};

fn published(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.kind == CallKind::Publish && call.code == Code::Ok).count()
}

/// When an entry of the directory was last made or removed, and when it was last changed itself.
fn times(directory: &Path) -> std::io::Result<[i64; 4]> {
    let seen = std::fs::metadata(directory)?;
    Ok([seen.mtime(), seen.mtime_nsec(), seen.ctime(), seen.ctime_nsec()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_start_publishes_three_times_and_costs_one_login_and_one_mount() -> anyhow::Result<()>
{
    let (scene, pod) = scene().await?;
    let targets = scene.kubelet().start(&pod, SOON).await?;
    let calls = scene.kubelet().calls();
    assert_eq!((calls.len(), published(&calls)), (3, 3), "{calls:?}");
    assert!(calls.iter().all(|call| call.volume_id == volume_id(&pod, &pod.volumes[0])));
    assert_eq!(scene.store().count(Operation::Login), 1, "a republish is no login");
    assert_eq!(scene.store().count(Operation::Read), 1, "and no read");
    assert_eq!(files::mounts_at(&targets[0])?, 1);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn republishes_go_on_while_a_live_mount_its_files_and_its_parent_stay_untouched()
-> anyhow::Result<()> {
    let (scene, pod) = scene().await?;
    let kubelet = scene.kubelet();
    let target = scene.publish(&pod).await?;
    let parent = target.parent().expect("a target has a parent").to_owned();
    let file = target.join("p");
    let (mut open, inode) =
        blocking(move || Ok((std::fs::File::open(&file)?, std::fs::metadata(&file)?.ino())))
            .await?;
    let (mount, before) = (files::mount_line(&target)?, times(&parent)?);
    let cadence = kubelet.sync_every(&pod, Duration::from_millis(10));
    let enough = kubelet.until_calls(|calls| calls.len() > 50);
    let calls = tokio::select! {
        () = cadence => unreachable!("it goes on for ever"),
        calls = tokio::time::timeout(SOON, enough) => calls?,
    };
    assert_eq!(published(&calls), calls.len(), "{calls:?}");
    assert_eq!(files::mount_line(&target)?, mount, "the same mount, with the same options");
    assert_eq!(times(&parent)?, before, "nothing was made or removed beside it");
    let file = target.join("p");
    let (value, after) = blocking(move || {
        let mut value = String::new();
        open.rewind()?;
        open.read_to_string(&mut value)?;
        Ok((value, std::fs::metadata(&file)?.ino()))
    })
    .await?;
    assert_eq!((value.as_str(), after), ("p-1", inode), "an open file reads on");
    assert_eq!(scene.store().count(Operation::Login), 1);
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_between_republishes_is_seen_in_the_same_mount() -> anyhow::Result<()> {
    let (scene, mut pod) = scene().await?;
    let attributes = &mut pod.volumes[0].attributes;
    attributes.insert("sotto.dev/refresh".to_owned(), "1s".to_owned());
    let target = scene.publish(&pod).await?;
    let mount = files::mount_line(&target)?;
    scene.write("payments/checkout/db", json!({"password": "p-2"})).await?;
    let seen = async {
        while files::read(target.join("p")).await? != "p-2" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = scene.kubelet().sync_every(&pod, Duration::from_millis(10)) => unreachable!("for ever"),
        seen = tokio::time::timeout(SOON, seen) => seen??,
    }
    assert_eq!(files::mount_line(&target)?, mount);
    let calls = scene.kubelet().calls();
    assert!(published(&calls) == calls.len() && calls.len() > 3, "{calls:?}");
    scene.stop(&pod).await
}

/// kubelet's own deadline is 2 min; here it is shorter than the store's answer takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_kubelet_gave_up_is_finished_and_the_next_finds_it_done() -> anyhow::Result<()>
{
    let (scene, pod) = scene().await?;
    let (kubelet, volume) = (scene.kubelet(), &pod.volumes[0]);
    let target = kubelet.target(&pod, volume);
    std::fs::create_dir_all(target.parent().expect("a target has a parent"))?;
    let slow = Fault::Slow(Duration::from_secs(1));
    scene.store().fail(Some(Operation::Login), slow, Some(1));
    let mut request = tonic::Request::new(kubelet.request(&pod, volume));
    request.set_timeout(Duration::from_millis(200));
    let given_up = kubelet.node().await?.node_publish_volume(request).await.map(drop);
    let code = given_up.expect_err("the store is slower").code();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&code), "{code:?}");
    assert_eq!(scene.publish(&pod).await?, target);
    assert_eq!(files::mounts_at(&target)?, 1);
    assert_eq!(scene.store().count(Operation::Login), 1, "the first call's login was enough");
    assert_eq!(files::read(target.join("p")).await?, "p-1");
    scene.stop(&pod).await
}
