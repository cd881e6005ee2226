//! What was asked: an API path read as Kubernetes reads it.

use std::collections::BTreeMap;

use http::Method;
use serde_json::Value;

/// One request, as RBAC sees it, with its query and body.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`.
    pub verb: &'static str,
    /// The API group; empty for core.
    pub group: String,
    /// The version within it.
    pub version: String,
    /// The plural of the resource.
    pub resource: String,
    /// The subresource; empty if none.
    pub subresource: String,
    /// The namespace; empty for all, or for what has none.
    pub namespace: String,
    /// The object's name; empty for a collection.
    pub name: String,
    /// The query.
    pub query: BTreeMap<String, String>,
    /// The body's type.
    pub content_type: String,
    /// The body; null if none.
    pub body: Value,
}

impl Recorded {
    /// Reads method, path and query; nothing if it isn't an API path.
    pub(super) fn parse(method: &Method, path: &str, query: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, "", ""),
            [resource, name] => (*resource, *name, ""),
            [resource, name, subresource] => (*resource, *name, *subresource),
            _ => return None,
        };
        let query = query.map(parse_query).unwrap_or_default();
        Some(Self {
            verb: verb(method, name, &query)?,
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            query,
            content_type: String::new(),
            body: Value::Null,
        })
    }

    /// `<group>/<version>`, or the version alone for core.
    pub(super) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// A parameter of the query.
    pub(super) fn parameter(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }
}

fn verb(method: &Method, name: &str, query: &BTreeMap<String, String>) -> Option<&'static str> {
    let watches = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    match *method {
        Method::GET if watches => Some("watch"),
        Method::GET if name.is_empty() => Some("list"),
        Method::GET => Some("get"),
        Method::POST => Some("create"),
        Method::PATCH => Some("patch"),
        Method::PUT => Some("update"),
        Method::DELETE => Some("delete"),
        _ => None,
    }
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit().unwrap_or_default(), digit().unwrap_or_default());
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        let get = |path: &str, query| Recorded::parse(&Method::GET, path, query);
        let watch = get("/apis/a.b/v1/things", Some("watch=true&x=a%2Fb+c")).unwrap();
        assert_eq!((watch.verb, watch.group.as_str()), ("watch", "a.b"));
        assert_eq!(watch.parameter("x"), Some("a/b c"));
        let one = get("/api/v1/namespaces/n/pods/p", None).unwrap();
        assert_eq!((one.verb, one.namespace.as_str(), one.name.as_str()), ("get", "n", "p"));
        assert_eq!(get("/api/v1/namespaces/n", None).unwrap().resource, "namespaces");
        assert_eq!(get("/api/v1/pods", None).unwrap().verb, "list");
        assert!(get("/version", None).is_none());
    }
}
