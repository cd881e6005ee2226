//! RBAC rules, as far as verbs, groups and resources go.

use serde_json::Value;

use super::request::Recorded;

/// The `rules:` of a ClusterRole.
#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    names: Vec<String>,
}

impl Rules {
    pub(super) fn parse(rules: &Value) -> Self {
        let texts = |value: &Value| {
            let list = value.as_array().map_or(&[] as &[Value], Vec::as_slice);
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let rules = rules.as_array().map_or(&[] as &[Value], Vec::as_slice).iter();
        Self(
            rules
                .map(|rule| Rule {
                    groups: texts(&rule["apiGroups"]),
                    resources: texts(&rule["resources"]),
                    verbs: texts(&rule["verbs"]),
                    names: texts(&rule["resourceNames"]),
                })
                .collect(),
        )
    }

    /// Whether the request may be answered. Server-side apply needs `create` as well as `patch`.
    pub(super) fn allow(&self, request: &Recorded) -> bool {
        let applies = request.content_type.starts_with("application/apply-patch");
        self.allow_verb(request, request.verb) && (!applies || self.allow_verb(request, "create"))
    }

    fn allow_verb(&self, request: &Recorded, verb: &str) -> bool {
        let resource = match request.subresource.as_str() {
            "" => request.resource.clone(),
            subresource => format!("{}/{subresource}", request.resource),
        };
        let has =
            |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        self.0.iter().any(|rule| {
            has(&rule.groups, &request.group)
                && has(&rule.resources, &resource)
                && has(&rule.verbs, verb)
                && (rule.names.is_empty() || rule.names.contains(&request.name))
        })
    }
}
