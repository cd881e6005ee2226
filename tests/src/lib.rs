//! What the end-to-end tests share: a scene with a store, an issuer, a node and a pod.

pub mod chance;
pub mod cluster;
pub mod cpu_time;
pub mod files;
pub mod inotify;
pub mod memory;
pub mod metrics;
pub mod moves;
pub mod procfs;
pub mod proxy;
pub mod readers;
pub mod scene;
pub mod served;
pub mod sidecars;
pub mod table;
pub mod usage;
pub mod wait;

/// Runs one scenario on the embedded store and on a real OpenBao server, as two tests.
#[macro_export]
macro_rules! on_both_stores {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        mod on_the_embedded_store {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::scene::Scene::embedded().await?).await
            })*
        }
        mod on_openbao {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                super::$name($crate::scene::Scene::openbao().await?).await
            })*
        }
    };
}
