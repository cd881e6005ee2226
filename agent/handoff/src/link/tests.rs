use super::*;
use crate::message::{Acknowledged, Release, Released, Serving, Token};
use std::os::fd::AsFd;
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(5);

/// Answers Release at once, Token never, and gives back the fd of whatever else comes.
struct Peer {
    entered: Notify,
}

impl Handler for Peer {
    async fn handle(&self, body: Body, fd: Option<OwnedFd>) -> Result<Answer, Refusal> {
        match body {
            Body::Release(release) if release.volume_id == "bad" => {
                Err(Refusal::new(Code::NotFound, "no such volume"))
            }
            Body::Release(_) => Ok(Body::Released(Released {}).into()),
            Body::Token(_) => {
                self.entered.notify_one();
                std::future::pending().await
            }
            _ => Ok(Answer { body: Body::Acknowledged(Acknowledged {}), fd }),
        }
    }
}

fn linked(max_requests: usize) -> (Link, Link, Arc<Peer>, JoinSet<LinkEnd>) {
    let (one, two) = Connection::pair().unwrap();
    let peer = Arc::new(Peer { entered: Notify::new() });
    let (asks, task) = Link::start(one, Arc::clone(&peer), max_requests);
    let (answers, other) = Link::start(two, Arc::clone(&peer), max_requests);
    let mut tasks = JoinSet::new();
    tasks.spawn(task);
    tasks.spawn(other);
    (asks, answers, peer, tasks)
}

fn release(id: &str) -> Body {
    Body::Release(Release { volume_id: id.to_owned() })
}

fn never_answered() -> Body {
    Body::Token(Token::default())
}

#[tokio::test]
async fn both_sides_ask_and_answer_at_once() {
    let (one, two, _, _tasks) = linked(8);
    let (a, b) =
        tokio::join!(one.call(release("v"), None, SOON), two.call(release("v"), None, SOON));
    assert!(matches!(a.unwrap().body, Body::Released(_)));
    assert!(matches!(b.unwrap().body, Body::Released(_)));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_message() {
    let (one, _two, _, _tasks) = linked(8);
    let error = one.call(release("bad"), None, SOON).await.unwrap_err();
    let CallError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!((refusal.code(), refusal.message()), (Code::NotFound, "no such volume"));
}

#[tokio::test]
async fn an_fd_goes_there_and_back() {
    let (one, _two, _, _tasks) = linked(8);
    let (reader, _writer) = std::io::pipe().unwrap();
    let body = Body::Serving(Serving {});
    let answer = one.call(body, Some(reader.as_fd()), SOON).await.unwrap();
    let (sent, back) =
        (rustix::fs::fstat(&reader).unwrap(), rustix::fs::fstat(answer.fd.unwrap()).unwrap());
    assert_eq!((sent.st_dev, sent.st_ino), (back.st_dev, back.st_ino));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_by_its_deadline_and_the_link_lives_on() {
    let (one, _two, _, _tasks) = linked(8);
    let error = one.call(never_answered(), None, SOON).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline(SOON)), "{error}");
    assert!(one.shared.with_waiting(|waiting| waiting.as_ref().unwrap().is_empty()));
    assert!(one.call(release("v"), None, SOON).await.is_ok());
}

#[tokio::test]
async fn requests_over_the_bound_are_refused_not_queued() {
    let (one, _two, peer, _tasks) = linked(1);
    let busy = one.clone();
    let waiting = tokio::spawn(async move { busy.call(never_answered(), None, SOON).await });
    peer.entered.notified().await;
    let error = one.call(release("v"), None, SOON).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Refused(refusal) if refusal.code() == Code::ResourceExhausted)
    );
    waiting.abort();
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_call() {
    let (one, two, peer, mut tasks) = linked(8);
    let asking = one.clone();
    let call = tokio::spawn(async move { asking.call(never_answered(), None, SOON).await });
    peer.entered.notified().await;
    tasks.shutdown().await;
    assert!(matches!(call.await.unwrap(), Err(CallError::Closed)));
    two.closed().await;
    assert!(one.is_closed());
    assert!(matches!(one.call(release("v"), None, SOON).await, Err(CallError::Closed)));
}

#[tokio::test]
async fn a_request_of_a_later_version_is_refused_and_the_link_lives_on() {
    let (one, two) = Connection::pair().unwrap();
    let (link, task) = Link::start(one, Arc::new(NoRequests), 4);
    let task = tokio::spawn(task);
    two.send(&Frame { request: 9, answer: false, body: None }, None).await.unwrap();
    let answer = two.receive().await.unwrap().frame;
    let Some(Body::Refused(refused)) = answer.body else { panic!("not refused") };
    assert!(answer.answer && answer.request == 9);
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(!link.is_closed());
    task.abort();
}
