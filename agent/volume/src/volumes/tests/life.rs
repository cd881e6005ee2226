//! From Prepared to the end: serving, fresh tokens, release, drain.

use sotto_handoff::message::Code;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::super::*;
use super::fixture::{SOON, fixture, fixture_with};
use super::kernel::{FIRST_FILE, Kernel};
use super::said;
use crate::token::testing::{claims, token_map};
use sotto_core::limits::Limits;
use tokio::sync::Semaphore;

const EACCES: i32 = 13;

#[tokio::test]
async fn a_release_during_the_login_ends_the_preparation_and_the_login() {
    let fixture = fixture();
    let login = Arc::new(Semaphore::new(0));
    *fixture.store.hold_login.lock().unwrap() = Some(Arc::clone(&login));
    let release = async {
        fixture.store.asked.notified().await;
        let letting_in = async {
            tokio::task::yield_now().await;
            login.add_permits(1);
        };
        tokio::join!(fixture.release("csi-1"), letting_in).0
    };
    let (prepared, released) = tokio::join!(fixture.prepare("csi-1"), release);
    assert_eq!(said(prepared).0, Code::Unavailable);
    released.unwrap();
    assert_eq!(fixture.store.counts().2, 1, "the token of the login was revoked");
    assert_eq!((fixture.volumes.count(), fixture.mappings()), (0, 0));
}

#[tokio::test]
async fn a_release_is_repeatable_and_wipes_although_the_connection_lives() {
    let fixture = fixture();
    fixture.release("csi-1").await.unwrap();
    fixture.prepare("csi-1").await.unwrap();
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    assert_eq!(kernel.open(FIRST_FILE).await, 0);
    assert_eq!(fixture.mappings(), 1);
    fixture.release("csi-1").await.unwrap();
    assert_eq!(fixture.mappings(), 0, "values stay in memory");
    assert_eq!(kernel.open(FIRST_FILE).await, EACCES);
    fixture.release("csi-1").await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 1));
    let audited = fixture.audited().await;
    let wanted =
        ["verify-token allowed", "fetch allowed", "open allowed", "release allowed", "open denied"];
    assert_eq!(audited, wanted);
}

#[tokio::test]
async fn a_volume_is_served_once_prepared_and_not_before() {
    let fixture = fixture();
    let refused = Kernel::serve(&fixture, "csi-1", false).await;
    assert_eq!(said(refused).0, Code::NotFound);
    fixture.prepare("csi-1").await.unwrap();
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    // A second driver's word that it had a server before: it has it still.
    let again = Kernel::serve(&fixture, "csi-1", true).await.unwrap();
    drop(again);
    assert_eq!(kernel.open(FIRST_FILE).await, 0);
    let prepared = fixture.prepare("csi-1").await.unwrap();
    assert_eq!(prepared.objects.len(), 2);
}

#[tokio::test]
async fn a_volume_whose_server_failed_can_be_served_again() {
    let fixture = fixture();
    fixture.prepare("csi-1").await.unwrap();
    // A socket that ends isn't a connection that ended: it may live, with nobody to answer.
    drop(Kernel::serve(&fixture, "csi-1", false).await.unwrap());
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    assert_eq!(kernel.open(FIRST_FILE).await, 0);
    assert_eq!(fixture.store.counts(), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_nobody_serves_is_given_up() {
    let fixture = fixture();
    fixture.prepare("csi-1").await.unwrap();
    tokio::time::sleep(Deadlines::default().unserved - SOON).await;
    assert_eq!(fixture.volumes.count(), 1);
    tokio::time::sleep(2 * SOON).await;
    fixture.emptied().await;
    assert_eq!(fixture.store.counts(), (1, 1, 1));
    assert_eq!(fixture.mappings(), 0);
}

/// What the driver does at unpublish: the unmount ends the volume, and Release comes in the middle of it.
#[tokio::test]
async fn a_release_of_a_volume_that_is_ending_waits_for_the_revocation() {
    let deadlines = Deadlines { unserved: Duration::from_millis(1), ..Deadlines::default() };
    let fixture = fixture_with(Limits::default(), deadlines);
    let revoke = Arc::new(Semaphore::new(0));
    *fixture.store.hold_revoke.lock().unwrap() = Some(Arc::clone(&revoke));
    fixture.prepare("csi-1").await.unwrap();
    for _login_fetch_revoke in 0..3 {
        let _ =
            tokio::time::timeout(Duration::from_millis(50), fixture.store.asked.notified()).await;
    }
    let mut release = std::pin::pin!(fixture.release("csi-1"));
    assert!(futures::poll!(&mut release).is_pending(), "it was answered too early");
    revoke.add_permits(1);
    release.await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 1));
    assert_eq!(fixture.volumes.count(), 0);
}

#[tokio::test]
async fn a_slow_revocation_holds_nobody_up_and_is_not_given_up() {
    let deadlines = Deadlines { release: Duration::from_millis(250), ..Deadlines::default() };
    let fixture = fixture_with(Limits::default(), deadlines);
    let revoke = Arc::new(Semaphore::new(0));
    *fixture.store.hold_revoke.lock().unwrap() = Some(Arc::clone(&revoke));
    fixture.prepare("csi-1").await.unwrap();
    fixture.release("csi-1").await.unwrap();
    assert_eq!((fixture.volumes.count(), fixture.mappings()), (0, 0));
    assert_eq!(fixture.store.counts(), (1, 1, 0));
    revoke.add_permits(1);
    fixture.drain.finish(SOON).await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 1));
    let audited = fixture.audited().await;
    assert_eq!(audited, ["verify-token allowed", "fetch allowed", "release allowed"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_the_revocation_is_left() {
    let fixture = fixture();
    *fixture.store.hold_revoke.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    fixture.prepare("csi-1").await.unwrap();
    fixture.release("csi-1").await.unwrap();
    fixture.drain.finish(2 * Deadlines::default().revoke).await.unwrap();
    assert_eq!(fixture.store.counts(), (1, 1, 0));
}

#[tokio::test]
async fn a_fresh_token_is_taken_once_it_is_verified() {
    let fixture = fixture();
    let fresh = fixture.signer.mint("bao");
    let unknown = fixture.token("csi-1", token_map("bao", &fresh)).await;
    assert_eq!(said(unknown).0, Code::NotFound);
    fixture.prepare("csi-1").await.unwrap();
    fixture.token("csi-1", token_map("bao", &fresh)).await.unwrap();
    assert_eq!(*fixture.store.identities.lock().unwrap(), [fresh.expose()]);
    let mut claims = claims("bao");
    claims["kubernetes.io"]["pod"]["uid"] = json!("uid-2");
    let other = fixture.signer.sign(&fixture.signer.header(), &claims);
    let refused = fixture.token("csi-1", token_map("bao", &other)).await;
    assert_eq!(said(refused).0, Code::PermissionDenied);
    assert_eq!(fixture.store.identities.lock().unwrap().len(), 1, "another pod's was taken");
}

#[tokio::test]
async fn a_drain_leaves_served_volumes_to_the_successor_and_undoes_the_others() {
    let fixture = fixture();
    fixture.prepare("csi-1").await.unwrap();
    fixture.prepare("csi-2").await.unwrap();
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    fixture.drain.finish(SOON).await.unwrap();
    assert_eq!(fixture.store.revoked.load(Ordering::SeqCst), 1);
    assert_eq!(kernel.open(FIRST_FILE).await, 0);
    assert_eq!(said(fixture.prepare("csi-3").await).0, Code::Unavailable);
}
