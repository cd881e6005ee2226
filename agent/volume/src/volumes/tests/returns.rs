//! A driver that was restarted asks for what it lost.

use std::os::fd::AsFd;

use sotto_core::identity::Audience;
use sotto_handoff::link::Handler;
use sotto_handoff::message::{Code, frame::Body};
use sotto_handoff::refusal::Refusal;

use super::super::*;
use super::fixture::{Fixture, fixture};
use super::kernel::Kernel;
use super::said;
use crate::token::TokenMap;
use crate::token::testing::token_map;

async fn given_back(fixture: &Fixture, volume: &str) -> Result<(Returned, OwnedFd), Refusal> {
    let request = Body::Return(Return { volume_id: volume.to_owned() });
    match fixture.volumes.handle(request, None).await? {
        Answer { body: Body::Returned(returned), fd: Some(fd) } => Ok((returned, fd)),
        _ => panic!("it is another answer, or has no fd"),
    }
}

fn token_of(tokens: &[u8]) -> String {
    let token = TokenMap::parse(tokens).unwrap().take(&Audience::parse("bao").unwrap());
    token.ok().unwrap().expose().to_owned()
}

#[tokio::test]
async fn a_served_volume_is_given_back_with_what_it_shows_and_the_pods_token() {
    let fixture = fixture();
    let message = fixture.message("csi-1");
    let sent = token_of(&message.service_account_tokens);
    let prepared = fixture.prepare_with(message).await.unwrap();
    let kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    let (returned, fd) = given_back(&fixture, "csi-1").await.unwrap();
    assert!(kernel.is_the_other_end_of(fd.as_fd()));
    let shown = (returned.generation, returned.layout, returned.object_count);
    assert_eq!(shown, (prepared.generation, prepared.layout, prepared.object_count));
    assert!(token_of(&returned.service_account_tokens) == sent);

    // The same again, with a fresh token.
    let tokens = token_map("bao", &fixture.signer.mint("bao"));
    let fresh = token_of(&tokens);
    fixture.token("csi-1", tokens).await.unwrap();
    let (returned, _) = given_back(&fixture, "csi-1").await.unwrap();
    assert!(token_of(&returned.service_account_tokens) == fresh);
    assert!(fresh != sent);
}

#[tokio::test]
async fn a_volume_that_is_not_served_is_not_given_back() {
    let fixture = fixture();
    assert_eq!(said(given_back(&fixture, "csi-1").await).0, Code::NotFound);
    assert_eq!(said(given_back(&fixture, "../x").await).0, Code::InvalidArgument);
    fixture.prepare("csi-1").await.unwrap();
    assert_eq!(said(given_back(&fixture, "csi-1").await).0, Code::NotFound);
    let _kernel = Kernel::serve(&fixture, "csi-1", false).await.unwrap();
    given_back(&fixture, "csi-1").await.unwrap();
    fixture.release("csi-1").await.unwrap();
    assert_eq!(said(given_back(&fixture, "csi-1").await).0, Code::NotFound);
}
