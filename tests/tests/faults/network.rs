//! The network between the agent and its store, and who is at its other end.

use std::os::unix::fs::chown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use sotto_dev::node::{AGENT_ID, may_become};
use sotto_dev::pki::{Authority, CertificateSpec, Credential, write_file};
use sotto_dev::store::{DevStore, Operation};
use sotto_dev::test_store::TestStore;
use sotto_tests::metrics;
use sotto_tests::proxy::Proxy;
use sotto_tests::scene::{Scene, StoreSettings};
use sotto_tests::served::Served;
use sotto_tests::table::{Milliseconds, Outcome};
use sotto_tests::wait::until;
use tokio::net::TcpListener;

const EVERY_SECOND: (&str, &str) = ("sotto.dev/refresh", "1s");

/// A scene whose store is behind a proxy; the address of the metrics too.
async fn behind_a_proxy() -> anyhow::Result<(Served<DevStore>, Proxy, std::net::SocketAddr)> {
    let (proxy, scrape) = (Proxy::start().await?, metrics::free_address()?);
    let address = proxy.address();
    let settings = StoreSettings::edited(move |config| {
        config["stores"][0]["address"] = format!("https://{address}").into();
        config["metrics"]["address"] = scrape.to_string().into();
    });
    let scene = Scene::embedded_with(settings).await?;
    proxy.lead_to(scene.store().access().address);
    let served = Served::start(scene, 2, &[EVERY_SECOND]).await?;
    anyhow::ensure!(proxy.connections() > 0, "the store is reached without the proxy");
    Ok((served, proxy, scrape))
}

pub(crate) async fn is_cut() -> anyhow::Result<Outcome> {
    let (mut served, proxy, scrape) = behind_a_proxy().await?;
    let readers = served.readers(2)?;
    proxy.cut();
    let next = served.write().await?;
    let outage = async {
        loop {
            let text = metrics::scrape(scrape).await?;
            let line = "sotto_refreshes_total{store=\"main\",result=\"outage\"}";
            if text.lines().any(|it| it.starts_with(line)) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), outage).await.context("no metric tells")??;
    proxy.mend().await?;
    let begun = Instant::now();
    served.all_show(&next).await?;
    let took = begun.elapsed();
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting(format!("recovered {} after the cut", Milliseconds(took))))
}

pub(crate) async fn is_half_open() -> anyhow::Result<Outcome> {
    let (mut served, proxy, _) = behind_a_proxy().await?;
    let readers = served.readers(2)?;
    proxy.freeze();
    let next = served.write().await?;
    let begun = Instant::now();
    served.all_show(&next).await.context("the dead connection is kept")?;
    let took = begun.elapsed();
    anyhow::ensure!(took < Duration::from_secs(45), "it took {took:?}");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting(format!("left after {}", Milliseconds(took))))
}

/// Replaces a file of the agent's TLS configuration in one step.
fn replace(scene: &Scene<DevStore>, name: &str, content: &str, mode: u32) -> anyhow::Result<()> {
    let owner = may_become(AGENT_ID).then_some(AGENT_ID);
    let (at, aside) = (scene.node().path("etc"), format!("{name}.aside"));
    write_file(&at.join(&aside), content, mode)?;
    chown(at.join(&aside), owner, owner)?;
    Ok(std::fs::rename(at.join(aside), at.join(name))?)
}

pub(crate) async fn has_other_certificates() -> anyhow::Result<Outcome> {
    let mut served = Served::start(Scene::embedded().await?, 2, &[EVERY_SECOND]).await?;
    let (worker, readers) = (served.scene.node().worker(), served.readers(2)?);
    let (scene, next) = (&served.scene, Authority::new("the next authority")?);
    // Overlap: the old CA and the new one, then another client certificate.
    let both = format!("{}{}", scene.authority().certificate_pem(), next.certificate_pem());
    replace(scene, "main-ca.pem", &both, 0o644)?;
    let client = scene.authority().client("sotto-node-renewed")?;
    replace(scene, "main-tls.key", &client.key_pem(), 0o600)?;
    replace(scene, "main-tls.crt", client.certificate_pem(), 0o644)?;
    let renewed = || {
        let requests = scene.store().requests();
        requests.iter().any(|it| it.peer.client.as_deref() == Some("sotto-node-renewed"))
    };
    until("a request with the new certificate", renewed).await?;
    let failed = scene.store().requests().iter().filter(|it| it.status >= 400).count();
    anyhow::ensure!(failed == 0, "{failed} requests failed");
    let value = served.write().await?;
    served.all_show(&value).await?;
    // The server's certificate is the next authority's, which is then the only one.
    let clients = served.scene.authority().certificate_pem().to_owned();
    served.scene.store_mut().show(&next.server("sotto-dev store")?, &clients).await?;
    let value = served.write().await?;
    served.all_show(&value).await.context("with the store's next certificate")?;
    replace(&served.scene, "main-ca.pem", next.certificate_pem(), 0o644)?;
    let value = served.write().await?;
    served.all_show(&value).await.context("without the old CA")?;
    anyhow::ensure!(served.scene.node().worker() == worker, "it was restarted");
    let log = served.scene.node().agent().log().text();
    anyhow::ensure!(!log.contains("outage") && !log.contains("is unreachable"), "{log}");
    let outcome = served.judged(readers)?;
    served.stop().await?;
    Ok(outcome.noting("CA bundle, client certificate, server certificate of another CA"))
}

/// A server that nobody should talk to, and how many handshakes it completed.
async fn impostor(
    credential: &Credential,
) -> anyhow::Result<(std::net::SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = sotto_dev::tls::acceptor(credential, None)?;
    let (met, talked) = (Arc::new(AtomicUsize::new(0)), Arc::<AtomicUsize>::default());
    let counted = (Arc::clone(&met), Arc::clone(&talked));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.0.fetch_add(1, Ordering::SeqCst);
            // With TLS 1.3 a server is done before its client has looked: only what comes then counts.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                use tokio::io::AsyncReadExt;
                let read = stream.read(&mut [0; 64]).await;
                counted.1.fetch_add(usize::from(read.is_ok_and(|size| size > 0)), Ordering::SeqCst);
            }
        }
    });
    Ok((address, talked))
}

pub(crate) async fn leads_to_an_impostor() -> anyhow::Result<Outcome> {
    let proxy = Proxy::start().await?;
    let address = proxy.address();
    let settings = StoreSettings::edited(move |config| {
        config["stores"][0]["address"] = format!("https://{address}").into();
    });
    let served = Served::start(Scene::embedded_with(settings).await?, 0, &[]).await?;
    let scene = &served.scene;
    let mut expired = CertificateSpec::server("sotto-dev store");
    expired.not_before = SystemTime::now() - Duration::from_secs(7_200);
    expired.not_after = SystemTime::now() - Duration::from_secs(3_600);
    let strangers = Authority::new("stranger")?.server("sotto-dev store")?;
    let mut other_name = CertificateSpec::server("elsewhere");
    other_name.alternative_names = vec!["elsewhere.invalid".to_owned()];
    for (number, (what, credential)) in [
        ("an expired certificate", scene.authority().issue(&expired)?),
        ("another authority", strangers),
        ("another name", scene.authority().issue(&other_name)?),
    ]
    .into_iter()
    .enumerate()
    {
        let (to, talked) = impostor(&credential).await?;
        proxy.lead_to(to);
        let message = scene.refusal(&served.pod(number, &[])).await?;
        anyhow::ensure!(message.contains("store main is not trusted"), "{what}: {message}");
        anyhow::ensure!(talked.load(Ordering::SeqCst) == 0, "{what}: something was sent");
    }
    anyhow::ensure!(scene.store().count(Operation::Login) == 0, "the store was asked");
    // The check can fail: the right server is asked over the same way.
    proxy.lead_to(scene.store().access().address);
    let pod = served.pod(9, &[]);
    scene.publish(&pod).await?;
    anyhow::ensure!(scene.store().count(Operation::Login) == 1);
    scene.stop(&pod).await?;
    Ok(Outcome::held())
}
