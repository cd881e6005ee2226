//! Lists that were read lately: the pods of one Deployment have the same, and reading YAML takes as long as verifying
//! a token.
//!
//! Invariant: only what was read without a fault is kept, by its whole text and the limits it was read with; what is
//! kept is bounded in number and bytes. Nothing here is secret: a class is readable in its namespace.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use sotto_core::limits::Limits;

use super::{Objects, read};
use crate::grammar::error::PlanError;

/// Lists that are kept.
const MOST: usize = 32;
/// Longest text of one that is kept, in bytes: with it most of a list of a hundred objects.
const LONGEST: usize = 16 << 10;

/// The lists, the latest first.
#[derive(Default)]
pub(crate) struct Known(Mutex<VecDeque<List>>);

struct List {
    text: String,
    limits: Limits,
    objects: Objects,
    warnings: Vec<String>,
}

impl Known {
    /// As [`read`], which is asked for what isn't known.
    pub(in crate::grammar) fn read(
        &self,
        text: Option<&str>,
        limits: &Limits,
        warnings: &mut Vec<String>,
        faults: &mut Vec<PlanError>,
    ) -> Objects {
        let Some(text) = text.filter(|text| text.len() <= LONGEST) else {
            return read(text, limits, warnings, faults);
        };
        let known = self.with(|lists| {
            let list = lists.iter().find(|it| it.text == text && it.limits == *limits)?;
            warnings.extend(list.warnings.iter().cloned());
            Some(list.objects.clone())
        });
        if let Some(objects) = known {
            return objects;
        }
        let (mut said, mut found) = (Vec::new(), Vec::new());
        let objects = read(Some(text), limits, &mut said, &mut found);
        if found.is_empty() {
            let (text, limits) = (text.to_owned(), *limits);
            let list = List { text, limits, objects: objects.clone(), warnings: said.clone() };
            self.with(|lists| {
                lists.truncate(MOST - 1);
                lists.push_front(list);
            });
        }
        warnings.extend(said);
        faults.extend(found);
        objects
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<List>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(name: &str) -> String {
        format!("- {{objectName: {name}, secretPath: secret/data/db, secretKey: k, unknown: 1}}")
    }

    fn seen(known: &Known, text: &str, limits: &Limits) -> (Vec<String>, usize, usize) {
        let (mut warnings, mut faults) = (Vec::new(), Vec::new());
        let objects = known.read(Some(text), limits, &mut warnings, &mut faults).objects;
        let names = objects.iter().map(|object| object.path.to_string()).collect();
        (names, warnings.len(), faults.len())
    }

    fn count(known: &Known) -> usize {
        known.0.lock().unwrap().len()
    }

    #[test]
    fn a_known_list_says_what_it_said_before() {
        let (known, limits) = (Known::default(), Limits::default());
        for _ in 0..2 {
            assert_eq!(seen(&known, &list("a"), &limits), (vec!["a".to_owned()], 1, 0));
            assert_eq!(seen(&known, &list("b"), &limits), (vec!["b".to_owned()], 1, 0));
        }
        assert_eq!(count(&known), 2);
    }

    #[test]
    fn other_limits_are_asked_anew_and_faults_are_found_each_time() {
        let (known, limits) = (Known::default(), Limits::default());
        seen(&known, &list("a"), &limits);
        let none = Limits { objects: 0, ..limits };
        for _ in 0..2 {
            assert_eq!(seen(&known, &list("a"), &none).2, 1);
            assert_eq!(seen(&known, &list("../a"), &limits).2, 1);
        }
        assert_eq!(count(&known), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (known, limits) = (Known::default(), Limits::default());
        for number in 0..2 * MOST {
            seen(&known, &list(&format!("a{number}")), &limits);
        }
        assert_eq!(count(&known), MOST);
        let long = list(&"a".repeat(100)).repeat(LONGEST / 100);
        seen(&known, &long, &limits);
        assert!(known.0.lock().unwrap().iter().all(|list| list.text.len() <= LONGEST));
    }
}
