//! What the store knows: mounts, auth methods, policies, tokens, and what was asked of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::Faults;
use super::kv::Engine;
use super::policy::{Capability, Policy};
use crate::https::Peer;
use crate::issuer::Issuer;

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `sys/health`.
    Health,
    /// A login by any method.
    Login,
    /// A secret is read.
    Read,
    /// A secret is written, deleted, destroyed.
    Write,
    /// `sys/internal/ui/mounts`.
    Mounts,
    /// A token is renewed or looked up.
    Renew,
    /// A token is revoked.
    Revoke,
    /// Whatever else.
    Other,
}

/// A request that reached the store.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// What it was about.
    pub operation: Operation,
    /// The HTTP method.
    pub method: String,
    /// The path below `/v1/`, without the query.
    pub path: String,
    /// `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The status that was answered; 0 where the connection was cut or left hanging.
    pub status: u16,
    /// The `jti` of the pod's token, of a login that came with one.
    pub pod_token: Option<String>,
    /// What TLS agreed on.
    pub peer: Arc<Peer>,
}

/// How an auth method believes a pod's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// The token's signature, offline.
    Jwt,
    /// The API server's word; here the issuer's keys, as no pod is ever deleted before its token ends.
    Kubernetes,
}

/// Who may log in under a role, and what for.
#[derive(Debug, Clone)]
pub struct Role {
    /// One of them must be in `aud`.
    pub bound_audiences: Vec<String>,
    /// Namespaces; empty: all. A `*` at the end stands for whatever follows.
    pub bound_namespaces: Vec<String>,
    /// Service accounts; empty: all.
    pub bound_service_accounts: Vec<String>,
    /// Policies of the token that is given.
    pub policies: Vec<String>,
    /// Life of the token.
    pub token_ttl: Duration,
    /// Longest life, renewals included.
    pub token_max_ttl: Duration,
}

impl Role {
    /// For the pods of one namespace, audience `bao`, policy `pod`, ten minutes.
    #[must_use]
    pub fn of_namespace(namespace: &str) -> Self {
        Self {
            bound_audiences: vec!["bao".to_owned()],
            bound_namespaces: vec![namespace.to_owned()],
            bound_service_accounts: Vec::new(),
            policies: vec!["pod".to_owned()],
            token_ttl: Duration::from_secs(600),
            token_max_ttl: Duration::from_secs(3600),
        }
    }
}

/// A mounted auth method.
pub(super) struct Auth {
    pub(super) method: AuthMethod,
    pub(super) issuer: Issuer,
    pub(super) roles: BTreeMap<String, Role>,
}

/// A store token.
pub(super) struct Token {
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The entity whose metadata templates see.
    pub(super) entity: String,
    pub(super) ttl: Duration,
    pub(super) expires: Instant,
    /// No renewal goes beyond.
    pub(super) ends: Instant,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) admin_token: String,
    pub(super) tokens: BTreeMap<String, Token>,
    /// Metadata by entity; the last login wins, as in the real server.
    pub(super) entities: BTreeMap<String, BTreeMap<String, String>>,
    pub(super) auth: BTreeMap<String, Auth>,
    pub(super) policies: BTreeMap<String, Policy>,
    pub(super) mounts: BTreeMap<String, Engine>,
    pub(super) faults: Faults,
    pub(super) requests: Vec<Recorded>,
}

/// Whoever asks, once the token is known to be good.
pub(super) enum Asker<'a> {
    Admin,
    Token(&'a Token),
}

impl Inner {
    /// Who holds this token, if it is good.
    pub(super) fn asker(&self, token: Option<&str>) -> Option<Asker<'_>> {
        let token = token?;
        if token == self.admin_token {
            return Some(Asker::Admin);
        }
        self.tokens.get(token).filter(|it| it.expires > Instant::now()).map(Asker::Token)
    }

    pub(super) fn allows(&self, asker: &Asker<'_>, path: &str, capability: Capability) -> bool {
        self.any_policy(asker, |policy, metadata| policy.allows(path, capability, metadata))
    }

    pub(super) fn reaches(&self, asker: &Asker<'_>, mount: &str) -> bool {
        self.any_policy(asker, |policy, metadata| policy.reaches(mount, metadata))
    }

    fn any_policy(
        &self,
        asker: &Asker<'_>,
        check: impl Fn(&Policy, &BTreeMap<String, String>) -> bool,
    ) -> bool {
        let nobody = BTreeMap::new();
        match asker {
            Asker::Admin => check(&Policy::admin(), &nobody),
            Asker::Token(token) => {
                let metadata = self.entities.get(&token.entity).unwrap_or(&nobody);
                let policies = token.policies.iter().filter_map(|name| self.policies.get(name));
                policies.into_iter().any(|policy| check(policy, metadata))
            }
        }
    }
}
