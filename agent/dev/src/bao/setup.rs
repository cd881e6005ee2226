//! What the administrator of a store does for Sotto: mounts, auth methods, roles, the pods' policy.

use http::Method;
use serde_json::{Value, json};

use super::{Bao, BaoError};
use crate::issuer::{Issuer, IssuerServer};
use crate::postgres::Postgres;
use crate::store::{POD_POLICY, ROLE};

impl Bao {
    /// Sends a request as the administrator; a refusal is an error.
    ///
    /// # Errors
    /// No answer, or a status of 400 and above.
    pub async fn admin(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, BaoError> {
        let reply = self
            .client
            .send(method, &format!("/v1/{path}"), Some(&self.admin_token), body.as_ref())
            .await?;
        if reply.status >= 400 {
            let errors = reply.errors();
            return Err(BaoError::Refused { path: path.to_owned(), status: reply.status, errors });
        }
        Ok(reply.body)
    }

    /// Mounts, the jwt method with the issuer's keys, the role and the policy.
    pub(super) async fn prepare(&self, issuer: &Issuer) -> Result<(), BaoError> {
        let post = |path: &'static str, body| self.admin(Method::POST, path, Some(body));
        post("sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await?;
        post("sys/mounts/kv", json!({"type": "kv", "options": {"version": "1"}})).await?;
        post("sys/auth/jwt", json!({"type": "jwt"})).await?;
        self.trust_keys(issuer).await?;
        self.put_role("jwt", ROLE, jwt_role()).await?;
        self.put_pod_policy().await
    }

    /// The jwt method believes the issuer's present keys.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn trust_keys(&self, issuer: &Issuer) -> Result<(), BaoError> {
        let config = json!({
            "jwt_validation_pubkeys": issuer.public_keys_pem(), "bound_issuer": issuer.name(),
        });
        self.admin(Method::POST, "auth/jwt/config", Some(config)).await.map(drop)
    }

    /// The jwt method fetches keys from the issuer.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn trust_jwks(&self, issuer: &Issuer, server: &IssuerServer) -> Result<(), BaoError> {
        let config = json!({
            "jwks_url": server.jwks_url(), "jwks_ca_pem": server.ca_pem(),
            "bound_issuer": issuer.name(),
        });
        self.admin(Method::POST, "auth/jwt/config", Some(config)).await.map(drop)
    }

    /// The kubernetes method, which asks the issuer for TokenReviews.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn enable_kubernetes(&self, server: &IssuerServer) -> Result<(), BaoError> {
        let post = |path: &'static str, body| self.admin(Method::POST, path, Some(body));
        post("sys/auth/kubernetes", json!({"type": "kubernetes"})).await?;
        let config = json!({
            "kubernetes_host": server.url(), "kubernetes_ca_cert": server.ca_pem(),
            "token_reviewer_jwt": server.reviewer_token(), "disable_local_ca_jwt": true,
        });
        post("auth/kubernetes/config", config).await?;
        let role = json!({
            "bound_service_account_names": ["*"], "bound_service_account_namespaces": ["payments"],
            "audience": "bao", "token_policies": [POD_POLICY], "token_ttl": "10m",
            "token_max_ttl": "1h",
        });
        self.put_role("kubernetes", ROLE, role).await?;
        self.put_pod_policy().await
    }

    /// The cert method: whoever has the client certificate is the role `payments`.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn enable_cert(&self, ca_pem: &str, policy: &str) -> Result<(), BaoError> {
        let post = |path: &'static str, body| self.admin(Method::POST, path, Some(body));
        post("sys/auth/cert", json!({"type": "cert"})).await?;
        let role = json!({"certificate": ca_pem, "token_policies": [policy], "token_ttl": "10m"});
        post("auth/cert/certs/payments", role).await.map(drop)
    }

    /// A PKI engine with the role `payments-checkout`, which the pods' policy lets `payments/checkout` use.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn enable_pki(&self) -> Result<(), BaoError> {
        let post = |path: &'static str, body| self.admin(Method::POST, path, Some(body));
        post("sys/mounts/pki", json!({"type": "pki"})).await?;
        let root = json!({"common_name": "sotto-dev pki", "ttl": "8760h", "key_type": "ec"});
        post("pki/root/generate/internal", root).await?;
        let role = json!({
            "allowed_domains": ["payments.invalid"], "allow_subdomains": true, "key_type": "ec",
            "key_bits": 256, "max_ttl": "72h",
        });
        post("pki/roles/payments-checkout", role).await?;
        let rules =
            "path \"pki/issue/payments-checkout\" { capabilities = [\"create\", \"update\"] }";
        self.allow_pods("payments-pki", rules, jwt_role()).await
    }

    /// A database engine over `postgres`: `database/creds/payments` makes a role that lives for `ttl`, and by
    /// renewals for `max_ttl`. Pods of `payments` may have it, with tokens as `login` says (see
    /// [`jwt_role`]).
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn enable_database(
        &self,
        postgres: &Postgres,
        (ttl, max_ttl): (&str, &str),
        login: Value,
    ) -> Result<(), BaoError> {
        let post = |path: &'static str, body| self.admin(Method::POST, path, Some(body));
        post("sys/mounts/database", json!({"type": "database"})).await?;
        let (username, password) = postgres.administrator();
        let config = json!({
            "plugin_name": "postgresql-database-plugin", "allowed_roles": "payments",
            "connection_url": postgres.connection_url(), "username": username, "password": password,
        });
        post("database/config/payments", config).await?;
        let create =
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
        let role = json!({
            "db_name": "payments", "creation_statements": [create],
            "default_ttl": ttl, "max_ttl": max_ttl,
        });
        post("database/roles/payments", role).await?;
        let rules = "path \"database/creds/payments\" { capabilities = [\"read\"] }";
        self.allow_pods("payments-database", rules, login).await
    }

    /// Pods that log in with the jwt method's role `login` have this policy beside their own.
    async fn allow_pods(&self, policy: &str, rules: &str, login: Value) -> Result<(), BaoError> {
        let path = format!("sys/policies/acl/{policy}");
        self.admin(Method::POST, &path, Some(json!({"policy": rules}))).await?;
        let mut role = login;
        role["token_policies"] = json!([POD_POLICY, policy]);
        self.put_role("jwt", ROLE, role).await
    }

    /// Creates or replaces a role of an auth mount.
    ///
    /// # Errors
    /// As [`Self::admin`].
    pub async fn put_role(&self, mount: &str, name: &str, role: Value) -> Result<(), BaoError> {
        let path = format!("auth/{mount}/role/{name}");
        self.admin(Method::POST, &path, Some(role)).await.map(drop)
    }

    /// The policy `pod`, for the auth methods that are mounted now.
    pub(super) async fn put_pod_policy(&self) -> Result<(), BaoError> {
        let mounts = self.admin(Method::GET, "sys/auth", None).await?;
        let accessors: Vec<&str> = ["jwt/", "kubernetes/"]
            .iter()
            .filter_map(|mount| mounts["data"][mount]["accessor"].as_str())
            .collect();
        let policy = json!({"policy": super::config::pod_policy(&accessors)});
        let path = format!("sys/policies/acl/{POD_POLICY}");
        self.admin(Method::POST, &path, Some(policy)).await.map(drop)
    }
}

/// The role of the jwt method as it is at first: namespace bound, metadata for the policy's templates.
#[must_use]
pub fn jwt_role() -> Value {
    json!({
        "role_type": "jwt", "bound_audiences": ["bao"], "user_claim": "sub",
        "bound_claims_type": "glob", "bound_claims": {"/kubernetes.io/namespace": ["payments"]},
        "claim_mappings": {
            "/kubernetes.io/namespace": "ns", "/kubernetes.io/serviceaccount/name": "sa",
        },
        "token_policies": [POD_POLICY], "token_ttl": "10m", "token_max_ttl": "1h",
    })
}
