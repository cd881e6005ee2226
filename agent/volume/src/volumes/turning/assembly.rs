//! What the next generation of a volume is made of.
//!
//! Invariant: an object that was asked for and did not come keeps its last good value; one without a value in
//! memory is empty, and stays refused until a later generation has it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use sotto_core::rotation::{Freshness, ObjectResult};
use sotto_core::snapshot::{Object, Snapshot};
use sotto_store::VolumePlan;

use super::super::showing::mode_of;
use super::super::wipe::{copied, empty};
use super::{Consequence, Turning};

impl Turning {
    /// The next generation, where there is to be one.
    pub(super) fn assemble(
        &mut self,
        consequence: &mut Consequence,
        asked: &BTreeSet<usize>,
        results: &[ObjectResult],
        mut came: BTreeMap<usize, Object>,
        plan: &VolumePlan,
        current: &Snapshot,
    ) {
        let certain = results.iter().enumerate().all(|(index, result)| {
            *result == ObjectResult::Good || self.rotation.is_refused(index)
        });
        if certain {
            let owed = mem::take(&mut self.owed);
            let refused = |index: &usize| self.rotation.is_refused(*index);
            consequence.heal.extend(owed.into_iter().filter(|index| !refused(index)));
            consequence.open |= mem::take(&mut self.is_opening_owed);
        } else {
            self.owe(consequence);
            (consequence.heal, consequence.open) = (Vec::new(), false);
        }
        let issued: BTreeSet<_> =
            came.keys().filter(|index| !self.readable.contains(index)).copied().collect();
        // What was made for us may end before the others can be read.
        if certain || !issued.is_empty() && self.freshness() != Freshness::Closed {
            let next = self.next_objects(asked, results, &mut came, plan, current, consequence);
            consequence.next = next;
        }
        if certain {
            // Anything left is what the current generation has.
            came.clear();
        }
        came.retain(|index, _| issued.contains(index));
        self.kept_back = came;
        consequence.issued = issued;
    }

    /// The objects of the next generation: what came, what is as it was, and empty ones for what is refused.
    fn next_objects(
        &self,
        asked: &BTreeSet<usize>,
        results: &[ObjectResult],
        came: &mut BTreeMap<usize, Object>,
        plan: &VolumePlan,
        current: &Snapshot,
        consequence: &Consequence,
    ) -> Option<Vec<Object>> {
        let versions: BTreeMap<&str, &str> =
            current.versions().iter().map(|it| (it.id.as_str(), it.version.as_str())).collect();
        let path = |index: usize| plan.objects[index].path.as_str();
        let same_mode = |object: &Object| {
            object.mode.is_none_or(|mode| mode_of(current, object.path.as_str()) == Some(mode))
        };
        let same = |index: &usize| {
            let object = came.get(index);
            object.map(|object| object.version.as_str()) == versions.get(path(*index)).copied()
                && object.is_none_or(same_mode)
        };
        let returns = consequence.open || !consequence.heal.is_empty();
        let refused = |index: &usize| self.rotation.is_refused(*index);
        let mut looked_at = asked.iter().chain(came.keys());
        if !returns && looked_at.all(|index| refused(index) || same(index)) {
            return None;
        }
        let mut objects = Vec::new();
        for (index, planned) in plan.objects.iter().enumerate() {
            let is_good = results[index] == ObjectResult::Good;
            let has_value = is_good || !self.wiped.contains(&index);
            if let Some(object) = came.remove(&index) {
                objects.push(object);
            } else if refused(&index) || !has_value {
                objects.push(empty(&planned.path, planned.mode));
            } else if !asked.contains(&index) || !is_good {
                objects.extend(copied(current, &planned.path));
            }
        }
        Some(objects)
    }
}
