//! Sides of neighbouring versions understand each other: frames as the version before wrote and reads them,
//! and as one after might write them. Written by hand, so that a renumbered field is found.
#![expect(clippy::unwrap_used, reason = "in a test a failed step ends it")]

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sotto_handoff::frame::{decode, encode};
use sotto_handoff::link::{Answer, CallError, Handler, Link};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{
    Code, Frame, ObjectVersion, Ping, Pong, Prepare, Refused, Return, Returned,
};
use sotto_handoff::packet::Connection;
use sotto_handoff::refusal::Refusal;

const SOON: Duration = Duration::from_secs(5);

/// What the version before knows of a frame that carries something new: no body.
#[derive(Clone, PartialEq, Message)]
struct FrameBefore {
    #[prost(uint64, tag = "1")]
    request: u64,
    #[prost(bool, tag = "15")]
    answer: bool,
    #[prost(message, optional, tag = "4")]
    refused: Option<RefusedBefore>,
    #[prost(message, optional, tag = "5")]
    prepare: Option<()>,
    #[prost(message, optional, tag = "7")]
    serve: Option<()>,
}

#[derive(Clone, PartialEq, Message)]
struct RefusedBefore {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let mut packet = b"SH\x01\x00".to_vec();
    packet.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
    packet.extend(payload);
    packet
}

fn payload(frame: &Frame) -> Vec<u8> {
    encode(frame).unwrap()[8..].to_vec()
}

/// The order of fields is the encoder's own business.
fn sorted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.sort_unstable();
    bytes
}

fn give_back() -> Body {
    Body::Return(Return { volume_id: "v".to_owned() })
}

#[test]
fn frames_of_the_version_before_are_read() {
    // request 9, Serve{volume_id "v", init{major 7, minor 40, max_write 4096}, resend}
    let serve = [
        &[0x08, 9, 0x3a, 14, 0x0a, 1, b'v', 0x12, 7][..],
        &[0x08, 7, 0x10, 40, 0x28, 0x80, 0x20],
        &[0x18, 1],
    ];
    let frame = decode(&packet(&serve.concat())).unwrap();
    let Some(Body::Serve(serve)) = frame.body else { panic!("not a Serve") };
    let init = serve.init.unwrap();
    assert_eq!((frame.request, serve.volume_id.as_str(), serve.resend), (9, "v", true));
    assert_eq!((init.major, init.minor, init.max_write), (7, 40, 4_096));

    // answer to 9, Prepared{object_count 2, generation 3, layout 4}, from before `own_users`
    let prepared = [0x08, 9, 0x32, 6, 0x10, 2, 0x18, 3, 0x20, 4, 0x78, 1];
    let frame = decode(&packet(&prepared)).unwrap();
    let Some(Body::Prepared(prepared)) = frame.body else { panic!("not a Prepared") };
    assert_eq!((prepared.object_count, prepared.generation, prepared.layout), (2, 3, 4));
    assert!(frame.answer && !prepared.own_users);
}

#[test]
fn what_is_new_keeps_its_numbers() {
    let ping = payload(&Frame { request: 9, answer: false, body: Some(Body::Ping(Ping {})) });
    let pong = payload(&Frame { request: 9, answer: true, body: Some(Body::Pong(Pong {})) });
    assert_eq!(ping, [0x08, 9, 0xd2, 0x01, 0]);
    assert_eq!(sorted(pong), sorted(vec![0x08, 9, 0x78, 1, 0xda, 0x01, 0]));
    let asked = payload(&Frame { request: 9, answer: false, body: Some(give_back()) });
    assert_eq!(asked, [0x08, 9, 0x9a, 0x01, 3, 0x0a, 1, b'v']);
    let returned = Returned {
        generation: 3,
        layout: 4,
        object_count: 2,
        service_account_tokens: b"{}".to_vec(),
        ..Returned::default()
    };
    let given = payload(&Frame { request: 9, answer: true, body: Some(Body::Returned(returned)) });
    let wanted = [
        &[0x08, 9, 0x78, 1, 0xa2, 0x01, 10][..],
        &[0x08, 3, 0x10, 4, 0x18, 2, 0x22, 2, b'{', b'}'],
    ];
    assert_eq!(sorted(given), sorted(wanted.concat()));
    let object = ObjectVersion { id: "a".to_owned(), version: "1".to_owned() };
    let known =
        Prepare { content: 5, objects: vec![object], last_generation: 6, ..Prepare::default() };
    let asked = payload(&Frame { request: 9, answer: false, body: Some(Body::Prepare(known)) });
    let object = [0x7a, 6, 0x0a, 1, b'a', 0x12, 1, b'1'];
    let wanted = [&[0x08, 9, 0x2a, 13, 0x70, 5][..], &object, &[0x80, 0x01, 6]];
    assert_eq!(sorted(asked), sorted(wanted.concat()));
}

#[test]
fn frames_of_a_version_after_are_read_for_what_is_known() {
    // Return{volume_id "v", and a field 9 of a later version}
    let frame = decode(&packet(&[0x08, 9, 0x9a, 0x01, 5, 0x0a, 1, b'v', 0x48, 1])).unwrap();
    assert!(frame.body == Some(give_back()));
    // Returned{generation 3, and a message in field 30}
    let later = [0x08, 9, 0x78, 1, 0xa2, 0x01, 7, 0x08, 3, 0xf2, 0x01, 2, 0x08, 1];
    let Some(Body::Returned(returned)) = decode(&packet(&later)).unwrap().body else {
        panic!("not a Returned")
    };
    assert_eq!((returned.generation, returned.service_account_tokens.len()), (3, 0));
}

#[tokio::test]
async fn an_agent_of_the_version_before_says_no_to_what_is_new_and_stays_linked() {
    struct Nothing;
    impl Handler for Nothing {
        async fn handle(
            &self,
            _: Body,
            _: Option<std::os::fd::OwnedFd>,
        ) -> Result<Answer, Refusal> {
            panic!("nothing is asked")
        }
    }
    let (driver, agent) = Connection::pair().unwrap();
    let (link, task) = Link::start(driver, Arc::new(Nothing), 1);
    let task = tokio::spawn(task);
    let asking = link.clone();
    let asked = tokio::spawn(async move { asking.call(give_back(), None, SOON).await });
    let request = agent.receive().await.unwrap().frame;
    let seen = FrameBefore::decode(payload(&request).as_slice()).unwrap();
    assert_eq!((seen.request, seen.answer), (request.request, false));
    assert!(seen.prepare.is_none() && seen.serve.is_none(), "it takes it for something else");

    // What it answers to a frame without a body, in its own words.
    let refused = RefusedBefore {
        code: Code::Unimplemented.into(),
        message: "of a later version".to_owned(),
    };
    let answer = FrameBefore {
        request: seen.request,
        answer: true,
        refused: Some(refused),
        ..FrameBefore::default()
    };
    let answer = decode(&packet(&answer.encode_to_vec())).unwrap();
    assert!(matches!(&answer.body, Some(Body::Refused(Refused { .. }))));
    agent.send(&answer, None).await.unwrap();
    let error = asked.await.unwrap().unwrap_err();
    let CallError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.code(), Code::Unimplemented);
    assert!(!link.is_closed());
    task.abort();
}
