use super::*;
use crate::token::testing::{Signer, key_set};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An issuer that publishes what it is told to, and counts how often it is asked.
#[derive(Clone, Default)]
struct Issuer(Arc<Published>);

#[derive(Default)]
struct Published {
    /// `None`: it never answers.
    answer: StdMutex<Option<Result<Vec<u8>, KeysError>>>,
    asked: AtomicUsize,
}

impl Issuer {
    fn publishing(kids: &[&str]) -> Self {
        let issuer = Self::default();
        issuer.publish(kids);
        issuer
    }

    fn publish(&self, kids: &[&str]) {
        let keys: Vec<_> = kids.iter().map(|kid| Signer::ec(kid).jwk()).collect();
        self.answer(Some(Ok(key_set(&keys))));
    }

    fn answer(&self, answer: Option<Result<Vec<u8>, KeysError>>) {
        *self.0.answer.lock().unwrap() = answer;
    }

    fn down(&self) {
        let (from, reason) = (self.address().to_owned(), "connection refused".to_owned());
        self.answer(Some(Err(KeysError::Unreadable { from, reason })));
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn keys(&self) -> UrlKeys {
        UrlKeys::new(Box::new(self.clone()))
    }
}

impl FetchKeys for Issuer {
    fn address(&self) -> &str {
        "https://issuer.example/jwks"
    }

    fn fetch(&self) -> Boxed<'_, Result<Vec<u8>, KeysError>> {
        Box::pin(async {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            let answer = self.0.answer.lock().unwrap().clone();
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Yes,
    Unknown,
    Unavailable,
}

async fn find_key(keys: &UrlKeys, kid: &str) -> Found {
    match keys.key(kid).await {
        Ok(_) => Found::Yes,
        Err(KeyError::Unknown | KeyError::Unusable(_)) => Found::Unknown,
        Err(KeyError::Unavailable(_)) => Found::Unavailable,
    }
}

#[tokio::test(start_paused = true)]
async fn a_known_key_is_fetched_once() {
    let issuer = Issuer::publishing(&["a"]);
    let keys = issuer.keys();
    for _ in 0..50 {
        assert_eq!(find_key(&keys, "a").await, Found::Yes);
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_tokens_at_once_make_one_fetch() {
    let issuer = Issuer::publishing(&["a"]);
    let keys = issuer.keys();
    let found = futures::future::join_all((0..50).map(|_| find_key(&keys, "a"))).await;
    assert!(found.iter().all(|found| *found == Found::Yes));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_of_the_issuer_is_found_and_unknown_ones_make_no_storm() {
    let issuer = Issuer::publishing(&["a"]);
    let keys = issuer.keys();
    assert_eq!(find_key(&keys, "a").await, Found::Yes);
    for n in 0..50 {
        assert_eq!(find_key(&keys, &format!("forged-{n}")).await, Found::Unknown);
    }
    assert_eq!(issuer.asked(), 1, "within the pause nobody asks again");
    issuer.publish(&["a", "b"]);
    tokio::time::advance(FETCH_PAUSE).await;
    assert_eq!(find_key(&keys, "b").await, Found::Yes);
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_is_an_outage_and_known_keys_stay() {
    let issuer = Issuer::default();
    issuer.down();
    let keys = issuer.keys();
    assert_eq!(find_key(&keys, "a").await, Found::Unavailable);
    tokio::time::advance(FETCH_PAUSE).await;
    issuer.publish(&["a"]);
    assert_eq!(find_key(&keys, "a").await, Found::Yes);
    issuer.down();
    tokio::time::advance(REFRESH_AGE).await;
    assert_eq!(find_key(&keys, "a").await, Found::Yes);
    assert_eq!(find_key(&keys, "b").await, Found::Unavailable);
    tokio::time::advance(LARGEST_AGE).await;
    assert_eq!(find_key(&keys, "a").await, Found::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_issuer_withdrew_is_forgotten() {
    let issuer = Issuer::publishing(&["a", "b"]);
    let keys = issuer.keys();
    assert_eq!(find_key(&keys, "a").await, Found::Yes);
    issuer.publish(&["b"]);
    tokio::time::advance(REFRESH_AGE).await;
    assert_eq!(find_key(&keys, "a").await, Found::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_is_left_at_the_deadline() {
    let issuer = Issuer::default();
    let keys = issuer.keys();
    let begun = Instant::now();
    assert_eq!(find_key(&keys, "a").await, Found::Unavailable);
    assert_eq!(begun.elapsed(), KEYS_DEADLINE);
    // The next look-ups ask again once the pause is over, and don't queue behind the first.
    issuer.publish(&["a"]);
    assert_eq!(find_key(&keys, "a").await, Found::Yes);
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_key_set_is_an_outage() {
    let issuer = Issuer::default();
    issuer.answer(Some(Ok(b"<html>".to_vec())));
    assert_eq!(find_key(&issuer.keys(), "a").await, Found::Unavailable);
}
