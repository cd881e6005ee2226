//! What the answers of one attempt mean for each object.

use std::collections::{BTreeMap, BTreeSet};

use sotto_core::rotation::ObjectResult;
use sotto_core::snapshot::Object;
use sotto_store::{ObjectError, VolumePlan};

/// Why the values can't be brought up to date, where the reason isn't a refusal.
pub(super) fn outage(answers: Option<&[Result<Object, ObjectError>]>) -> Option<String> {
    let Some(answers) = answers else { return Some("no answer in time".to_owned()) };
    let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
    errors.filter(|error| !error.is_refusal()).map(ToString::to_string).next()
}

/// What each object's answer means, good where none was asked for; `None`: too late. What came is put
/// into `came`.
pub(super) fn results(
    plan: &VolumePlan,
    asked: &BTreeSet<usize>,
    answers: Option<Vec<Result<Object, ObjectError>>>,
    optional: bool,
    came: &mut BTreeMap<usize, Object>,
) -> Vec<ObjectResult> {
    let mut results = vec![ObjectResult::Good; plan.objects.len()];
    let Some(answers) = answers else {
        asked.iter().for_each(|index| results[*index] = ObjectResult::Outage);
        return results;
    };
    for (index, answer) in asked.iter().zip(answers) {
        results[*index] = match answer {
            Ok(object) => {
                came.insert(*index, object);
                ObjectResult::Good
            }
            Err(error) if optional && error.is_absence() => ObjectResult::Good,
            Err(error) if error.is_refusal() => ObjectResult::Refused,
            Err(_) => ObjectResult::Outage,
        };
    }
    results
}
