//! Policies: paths with capabilities, templated by the metadata of whoever asks.

use std::collections::BTreeMap;

/// What a rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// GET.
    Read,
    /// POST and PUT, of what is new and of what is there.
    Write,
    /// DELETE.
    Delete,
}

/// Rules; what none allows is denied.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<(String, Vec<Capability>)>,
}

impl Policy {
    /// Allows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Each pod reads what lies below its own namespace and service account, and nothing else.
    #[must_use]
    pub fn pod() -> Self {
        Self::new()
            .allow("secret/data/{{ns}}/{{sa}}/*", &[Capability::Read])
            .allow("kv/{{ns}}/{{sa}}/*", &[Capability::Read])
    }

    /// Everything.
    pub(super) fn admin() -> Self {
        Self::new().allow("*", &[Capability::Read, Capability::Write, Capability::Delete])
    }

    /// Allows capabilities on a path; `{{name}}` stands for a metadata value of the asker, a `*` at the end
    /// for whatever follows.
    #[must_use]
    pub fn allow(mut self, path: &str, capabilities: &[Capability]) -> Self {
        self.rules.push((path.to_owned(), capabilities.to_vec()));
        self
    }

    pub(super) fn allows(
        &self,
        path: &str,
        capability: Capability,
        metadata: &BTreeMap<String, String>,
    ) -> bool {
        self.rules.iter().any(|(rule, capabilities)| {
            capabilities.contains(&capability)
                && resolve(rule, metadata).is_some_and(|rule| matches(&rule, path))
        })
    }

    /// Whether anything below a mount is allowed: then the mount may be seen.
    pub(super) fn reaches(&self, mount: &str, metadata: &BTreeMap<String, String>) -> bool {
        self.rules.iter().any(|(rule, _)| {
            resolve(rule, metadata).is_some_and(|rule| rule == "*" || rule.starts_with(mount))
        })
    }
}

/// The rule for this asker; a template without a value matches nothing.
fn resolve(rule: &str, metadata: &BTreeMap<String, String>) -> Option<String> {
    let mut resolved = String::new();
    let mut rest = rule;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        resolved.push_str(before);
        resolved.push_str(metadata.get(name).filter(|value| !value.is_empty())?);
        rest = after;
    }
    resolved.push_str(rest);
    Some(resolved)
}

fn matches(rule: &str, path: &str) -> bool {
    rule.strip_suffix('*').map_or(rule == path, |prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> BTreeMap<String, String> {
        [("ns", "payments"), ("sa", "checkout")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn a_pod_reads_below_its_own_service_account_only() {
        let allows = |path| Policy::pod().allows(path, Capability::Read, &checkout());
        assert!(allows("secret/data/payments/checkout/db"));
        assert!(!allows("secret/data/payments/checkout-2/db"));
        assert!(!allows("secret/data/payments/web/db"));
        assert!(!allows("secret/data/shop/checkout/db"));
        assert!(!Policy::pod().allows(
            "secret/data/payments/checkout/db",
            Capability::Write,
            &checkout()
        ));
    }

    #[test]
    fn a_template_without_a_value_matches_nothing() {
        assert!(!Policy::pod().allows("secret/data///db", Capability::Read, &BTreeMap::new()));
    }
}
