//! `sotto-node refresh`, with the real binary.

use std::os::unix::process::CommandExt;

use sotto_dev::store::Operation;
use sotto_tests::files::{self, blocking};
use sotto_tests::scene::Scene;

use super::{published, turn};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_on_demand_says_what_came_of_each_volume() -> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let (pod, target) = published(&scene, "one").await?;
    let word = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    let (is_good, lines) = scene.node().refresh(&pod).await?;
    assert_eq!(
        (is_good, lines[0].as_str(), word(&lines[1]).as_str()),
        (true, "asked 1", "unchanged")
    );
    turn(&scene, &pod, "two").await?;
    assert_eq!(files::read(target.join("p")).await?, "two", "it is readable when that is said");

    scene.store().put_policy("pod", sotto_dev::store::Policy::new());
    let (is_good, lines) = scene.node().refresh(&pod).await?;
    assert_eq!((is_good, word(&lines[1]).as_str()), (false, "refused"));
    assert!(files::read(target.join("p")).await.is_err());
    scene.store().put_policy("pod", sotto_dev::store::Policy::pod());
    turn(&scene, &pod, "three").await?;

    scene.store().go_dark();
    let (is_good, lines) = scene.node().refresh(&pod).await?;
    assert_eq!((is_good, word(&lines[1]).as_str()), (false, "outage"));
    assert_eq!(files::read(target.join("p")).await?, "three");
    scene.store().come_back().await?;
    let said = scene.node().refresh(&scene.pod("other-0", "checkout", "db")).await?;
    assert!(!said.0 && said.1.concat().contains("no volume of that pod"), "{said:?}");
    assert!(!format!("{lines:?}{said:?}").contains("three"), "a value is in the answers");
    scene.stop(&pod).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_cannot_have_a_store_asked() -> anyhow::Result<()> {
    if !sotto_dev::node::may_become(1000) {
        return Ok(());
    }
    let scene = Scene::embedded().await?;
    let (pod, _) = published(&scene, "one").await?;
    let reads = scene.store().count(Operation::Read);
    let (binary, admin) = (scene.node().path("bin/sotto-node"), scene.node().admin());
    let asked = move |uid: u32| {
        let name = format!("--admin={admin}");
        let mut command = std::process::Command::new(&binary);
        command.args(["refresh", "payments/checkout-0", name.as_str()]).uid(uid).gid(uid).output()
    };
    let (stranger, agent) = blocking(move || Ok((asked(1000)?, asked(65_532)?))).await?;
    assert!(!stranger.status.success(), "{stranger:?}");
    assert!(agent.status.success(), "the agent's own user may: {agent:?}");
    assert_eq!(scene.store().count(Operation::Read), reads + 1, "one of both was carried out");
    scene.stop(&pod).await
}
