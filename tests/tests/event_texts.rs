//! What a pod's events say when its secrets don't come: each says what is wrong and what to do.
//!
//! A refused mount is told by kubelet, in the driver's words; what happens to a volume that is mounted is told
//! by sotto-node, as an event of its own. Both are read here, in a cluster.

#[path = "event_texts/mounted.rs"]
mod mounted;
#[path = "event_texts/refused.rs"]
mod refused;

use sotto_tests::cluster::{Cluster, OBJECTS};

/// Stands in the secrets, and so must stand nowhere else.
const CANARY: &str = "canary-value-7d2e";
/// Longest message that an event keeps.
const MOST_OF_AN_EVENT: usize = 1024;

/// A text that says what is wrong and what to do, and no value, no token, no more than an event keeps.
#[track_caller]
fn assert_says(case: &str, text: &str, wrong: &[&str], to_do: &[&str]) {
    for (kind, words) in [("what is wrong", wrong), ("what to do", to_do)] {
        assert!(!words.is_empty(), "{case}: the table has no words for {kind}");
        for word in words {
            assert!(text.contains(word), "{case}: {kind} is not said ({word:?}): {text}");
        }
    }
    assert!(!text.contains(CANARY), "{case}: a value is in: {text}");
    assert!(!text.contains("eyJ"), "{case}: a token is in: {text}");
    assert!(text.len() <= MOST_OF_AN_EVENT, "{case}: {} bytes: {text}", text.len());
}

#[test]
#[should_panic(expected = "what to do is not said")]
fn a_text_that_does_not_say_what_to_do_is_detected() {
    let text = "store main refuses payments/other: policy denies secret/data/x";
    assert_says("policy refusal", text, &["policy denies"], &["allow it"]);
}

#[test]
#[should_panic(expected = "a value is in")]
fn a_text_that_carries_a_value_is_detected() {
    let text = format!("the value {CANARY} is wrong; correct it");
    assert_says("value", &text, &["is wrong"], &["correct it"]);
}
