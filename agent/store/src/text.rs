//! A store's own words, made fit for an event: short, printable, without anything like a credential.
//!
//! Invariant: whatever of a response's body reaches an error or a log has passed through [`reason`].

/// Longest text taken over from a store, in characters.
pub(crate) const MAX_REASON_CHARS: usize = 200;
/// A run of this many letters and digits is a key or a token rather than a word.
const CREDENTIAL_RUN: usize = 20;
/// How the long names end that cloud services give their errors; no key is letters only and ends so.
const NAMES_OF_ERRORS: &[&str] = &["Exception", "Error", "Fault", "Failure", "NotFound", "Denied"];
const LONGEST_NAME_OF_ERROR: usize = 64;
const REMOVED: &str = "[removed]";

/// One line out of a store's `errors`; `secrets` are what was sent and must not come back.
pub(crate) fn reason(errors: &[String], secrets: &[&str]) -> String {
    let mut joined = errors.join("; ");
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        joined = joined.replace(secret, REMOVED);
    }
    let words: Vec<&str> = joined
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(|word| if looks_like_a_credential(word) { REMOVED } else { word })
        .collect();
    let line = words.join(" ").chars().map(plain).take(MAX_REASON_CHARS).collect::<String>();
    if line.is_empty() { "no reason given".to_owned() } else { line }
}

/// At most 80 characters of an author's text, for a message that prints it with `{:?}`.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

fn plain(character: char) -> char {
    if character == ' ' || character.is_ascii_graphic() { character } else { '?' }
}

fn looks_like_a_credential(word: &str) -> bool {
    let run = |part: &str| part.len() >= CREDENTIAL_RUN && !is_name_of_an_error(part);
    word.contains("eyJ")
        || ["hvs.", "hvb.", "hvr."].iter().any(|prefix| word.contains(prefix))
        || word.split(|c: char| !(c.is_ascii_alphanumeric() || "_=+".contains(c))).any(run)
}

fn is_name_of_an_error(run: &str) -> bool {
    run.len() <= LONGEST_NAME_OF_ERROR
        && run.bytes().all(|byte| byte.is_ascii_alphabetic())
        && NAMES_OF_ERRORS.iter().any(|end| run.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> String {
        reason(&[text.to_owned()], &["sent-secret"])
    }

    #[test]
    fn an_ordinary_reason_is_kept() {
        let text = "error validating token: validation error, token is expired (exp)";
        assert_eq!(of(text), text);
        assert_eq!(
            of("1 error occurred:\n\t* permission denied\n\n"),
            "1 error occurred: * permission denied"
        );
    }

    #[test]
    fn what_was_sent_and_what_looks_like_a_token_is_removed() {
        assert_eq!(of("bad token sent-secret!"), "bad token [removed]!");
        assert_eq!(of("got eyJhbGciOi.eyJ.x"), "got [removed]");
        assert_eq!(of("token hvs.short bad"), "token [removed] bad");
        assert_eq!(of("s.abcdefghij0123456789ABCD"), "[removed]");
        assert_eq!(
            of("path secret/data/payments-team/checkout"),
            "path secret/data/payments-team/checkout"
        );
    }

    #[test]
    fn the_long_name_of_an_error_is_no_credential() {
        for kept in
            ["AccessDeniedException: no", "InternalServiceFaultError", "(ResourceWasNotFound)"]
        {
            assert_eq!(of(kept), kept);
        }
        let long = format!("{}Error", "x".repeat(60));
        for removed in
            ["AccessDenied7Exception", "abcdefghijklmnopqrstu", "Exceptionabcdefghijkl", &long]
        {
            assert_eq!(of(removed), "[removed]", "{removed}");
        }
    }

    #[test]
    fn an_empty_reason_says_so() {
        assert_eq!(reason(&[], &[]), "no reason given");
    }

    proptest! {
        #[test]
        fn a_reason_is_short_printable_and_without_what_was_sent(
            before in ".{0,300}",
            after in ".{0,300}",
        ) {
            let reason = of(&format!("{before}sent-secret{after}"));
            prop_assert!(reason.chars().count() <= MAX_REASON_CHARS);
            prop_assert!(reason.chars().all(|c| c == ' ' || c.is_ascii_graphic()));
            prop_assert!(!reason.contains("sent-secret"));
        }
    }
}
