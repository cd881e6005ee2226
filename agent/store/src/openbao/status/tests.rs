use super::*;

fn answer(status: u16, body: &str, pause: Option<&str>) -> Result<Verdict, Trouble> {
    let mut headers = HeaderMap::new();
    if let Some(pause) = pause {
        headers.insert(RETRY_AFTER, pause.parse().unwrap());
    }
    judge(StatusCode::from_u16(status).unwrap(), &headers, &Words::of(body.as_bytes()))
}

#[test]
fn every_row_of_the_table_is_read_as_written() {
    let policy = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
    let vault =
        r#"{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}"#;
    let failover = r#"{"errors":["local node not active but active cluster node not found"]}"#;
    let upgrade = r#"{"errors":["Waiting for the primary to upgrade from Vault 0.8"]}"#;
    for (status, body, meaning) in [
        (200, "{}", Ok(Verdict::Success)),
        (204, "", Ok(Verdict::Success)),
        (403, r#"{"errors":["permission denied"]}"#, Ok(Verdict::InvalidToken)),
        (403, vault, Ok(Verdict::InvalidToken)),
        (403, policy, Ok(Verdict::PolicyDenied)),
        (400, upgrade, Err(Trouble::PrimaryUpgrading)),
        (400, r#"{"errors":["missing role"]}"#, Ok(Verdict::BadRequest)),
        (404, r#"{"errors":[]}"#, Ok(Verdict::NotFound)),
        (404, r#"{"data":{"data":null,"metadata":{}}}"#, Ok(Verdict::NotFound)),
        (404, r#"{"data":null,"warnings":["Invalid path"]}"#, Ok(Verdict::NotFound)),
        (412, "{}", Err(Trouble::NotCaughtUp)),
        (500, failover, Err(Trouble::NoActiveNode)),
        (500, r#"{"errors":["internal error"]}"#, Ok(Verdict::Unexpected)),
        (503, r#"{"errors":["Vault is sealed"]}"#, Err(Trouble::Sealed)),
        (503, "", Err(Trouble::Unavailable(StatusCode::SERVICE_UNAVAILABLE, None))),
        (502, "<html>", Err(Trouble::Unavailable(StatusCode::BAD_GATEWAY, None))),
        (307, "", Ok(Verdict::Redirect)),
    ] {
        assert_eq!(answer(status, body, None), meaning, "{status} {body}");
    }
}

#[test]
fn a_refusal_by_something_in_front_of_the_store_is_not_the_stores() {
    for status in [400, 403, 404] {
        for body in ["", "<html>denied</html>", "{}", "[]", r#"{"errors":null}"#] {
            assert_eq!(answer(status, body, None), Ok(Verdict::Unexpected), "{status} {body}");
        }
    }
}

#[test]
fn other_redirects_are_not_followed() {
    for status in [301, 302, 303, 308] {
        assert_eq!(answer(status, "", None), Ok(Verdict::Unexpected));
    }
}

#[test]
fn a_pause_is_kept_but_not_for_ever() {
    let limited = |pause| match answer(429, "{}", pause) {
        Err(Trouble::RateLimited(pause)) => pause,
        other => panic!("{other:?}"),
    };
    assert_eq!(limited(Some("7")), Some(Duration::from_secs(7)));
    assert_eq!(limited(Some("999999999")), Some(LONGEST_PAUSE));
    assert_eq!(limited(Some("Fri, 31 Dec 1999 23:59:59 GMT")), None);
    assert_eq!(limited(None), None);
}
