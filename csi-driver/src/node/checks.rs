//! One list of validations for each request, each with its gRPC code.
//!
//! Invariant: what passes here is parsed into types whose syntax is checked, and the pod's tokens have moved
//! into wiped memory. A publish has two lists: the first is about the request itself; the second is
//! about what a first mount needs, and is kept as a result, because a republish must not fail by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sotto_core::attributes::{
    AttributeError, SERVICE_ACCOUNT_TOKENS, SidecarAttributes, VolumeAttributes,
};
use sotto_core::clock::milliseconds;
use sotto_core::identity::{IdentifierError, VolumeId, WorkloadIdentity};
use sotto_core::secret::{SecretBytes, SecretString};
use sotto_proto::csi::v1::{
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeUnpublishVolumeRequest,
    VolumeCapability, volume_capability::AccessType,
};
use tonic::Code;

use crate::credentials::{Credentials, publish_secrets};
use crate::driver::Driver;
use crate::target::{TargetError, TargetPath};
use crate::volume::{Mode, Volume, VolumeSpec};

/// Most bytes of a `nodePublishSecretRef`, written as JSON.
const MAX_PUBLISH_SECRETS_BYTES: usize = 64 << 10;
/// Largest map of tokens: what fits into one frame to the agent. CSI's own limit of 4 KiB for maps is not
/// kept by kubelet either.
pub const MAX_TOKENS_BYTES: usize = 128 << 10;
/// The one mount flag that kubelet sends on its own (SELinux).
const CONTEXT_FLAG: &str = "context=";

/// A request that can't be served as it is.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// A field that must be there is not.
    #[error("{0} is missing from the request")]
    Missing(&'static str),
    /// The volume's id.
    #[error(transparent)]
    VolumeId(#[from] IdentifierError),
    /// The target path.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A block volume.
    #[error("only mounted volumes are served, no block volumes")]
    Block,
    /// A mount flag that isn't ours to set.
    #[error("mount flag {0:?} is not supported: a volume of secrets has fixed mount options")]
    MountFlag(String),
    /// Not a group.
    #[error("volume mount group {0:?} is not a group id")]
    Group(String),
    /// The volume's attributes.
    #[error(transparent)]
    Attributes(#[from] AttributeError),
    /// The target lies in another pod's directory.
    #[error("the target path is in the directory of pod {0}, the volume is of pod {1}")]
    OtherPod(String, String),
    /// No token.
    #[error(
        "the request has no service account token: the CSIDriver object needs tokenRequests with the \
         stores' audiences"
    )]
    NoTokens,
    /// A token of a pod whose sidecar has its own.
    #[error(
        "the request has tokens of the pod, which this driver must never see: the CSIDriver object must have \
         no tokenRequests, and the volume no nodePublishSecretRef"
    )]
    Unwanted,
    /// Too many or too large tokens.
    #[error("the service account tokens have {0} bytes: at most {MAX_TOKENS_BYTES}")]
    TokensTooLarge(usize),
    /// Over 64 KiB.
    #[error(
        "the volume's nodePublishSecretRef holds {0} bytes of JSON: at most {MAX_PUBLISH_SECRETS_BYTES}; keep \
         in it only what the provider needs"
    )]
    PublishSecretsTooLarge(usize),
    /// Not mounted here.
    #[error("volume {0} is not mounted on this node at this path")]
    NotFound(String),
}

impl Invalid {
    /// Its gRPC code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing(_)
            | Self::VolumeId(_)
            | Self::Target(_)
            | Self::Block
            | Self::MountFlag(_)
            | Self::Group(_)
            | Self::Attributes(_)
            | Self::OtherPod(..)
            | Self::TokensTooLarge(_)
            | Self::PublishSecretsTooLarge(_) => Code::InvalidArgument,
            Self::NoTokens | Self::Unwanted => Code::FailedPrecondition,
            Self::NotFound(_) => Code::NotFound,
        }
    }
}

/// NodePublishVolume, checked.
pub struct Publish {
    /// The volume.
    pub id: VolumeId,
    /// Where.
    pub target: TargetPath,
    /// Who is to serve it.
    pub mode: Mode,
    /// What a first publish needs.
    pub content: Result<Content, Invalid>,
}

/// NodePublishVolume of a pod's volume with its sidecar's socket, checked.
pub struct Handoff {
    /// The volume.
    pub id: VolumeId,
    /// Where.
    pub target: TargetPath,
    /// Whose.
    pub identity: WorkloadIdentity,
    /// SELinux context of what it shows.
    pub context: Option<String>,
}

/// NodePublishVolume of the driver for sidecars, checked.
pub enum Injected {
    /// What the application reads.
    Secrets(Publish),
    /// What the sidecar mounts.
    Handoff(Handoff),
}

/// What a first publish needs.
pub struct Content {
    /// Without tokens.
    pub spec: VolumeSpec,
    /// What kubelet brought for the agent.
    pub credentials: Credentials,
}

/// Checks NodePublishVolume.
///
/// # Errors
/// The first check of the first list that fails.
pub fn publish(request: NodePublishVolumeRequest, driver: &Driver) -> Result<Publish, Invalid> {
    let NodePublishVolumeRequest {
        volume_id,
        target_path,
        volume_capability,
        secrets,
        mut volume_context,
        ..
    } = request;
    let (tokens, publish_secrets) = take_secrets(secrets, &mut volume_context);

    let id = volume_id_of(volume_id)?;
    let target = target_of(&target_path, driver)?;
    let capability = mount_of(volume_capability)?;

    let attributes = VolumeAttributes::parse(&volume_context, &driver.settings.node_name);
    let content = attributes
        .map_err(Invalid::from)
        .and_then(|attributes| spec(attributes, capability, &target, driver))
        .and_then(|spec| with_tokens(spec, tokens, publish_secrets));
    Ok(Publish { id, target, mode: Mode::Node, content })
}

/// Checks NodePublishVolume of the driver that kubelet sends no tokens to.
///
/// # Errors
/// The first check of the first list that fails; all of them where the volume is no volume of secrets.
pub fn injected(request: NodePublishVolumeRequest, driver: &Driver) -> Result<Injected, Invalid> {
    let NodePublishVolumeRequest {
        volume_id,
        target_path,
        volume_capability,
        secrets,
        mut volume_context,
        ..
    } = request;
    let (tokens, publish_secrets) = take_secrets(secrets, &mut volume_context);
    let has_secrets = tokens.is_some() || !publish_secrets.is_empty();
    drop((tokens, publish_secrets));

    let id = volume_id_of(volume_id)?;
    let target = target_of(&target_path, driver)?;
    let capability = mount_of(volume_capability)?;
    let content = match SidecarAttributes::parse(&volume_context, &driver.settings.node_name) {
        Ok(SidecarAttributes::Handoff(identity)) => {
            same_pod(&target, &identity)?;
            let context = context_of(capability.flags, driver)?;
            if has_secrets {
                return Err(Invalid::Unwanted);
            }
            return Ok(Injected::Handoff(Handoff { id, target, identity, context }));
        }
        Ok(SidecarAttributes::Secrets(attributes)) => spec(attributes, capability, &target, driver),
        Err(error) => Err(error.into()),
    };
    let content = content.and_then(|spec| {
        let spec = VolumeSpec { mode: Mode::Sidecar, ..spec };
        let content = Content { spec, credentials: Credentials::none() };
        if has_secrets { Err(Invalid::Unwanted) } else { Ok(content) }
    });
    Ok(Injected::Secrets(Publish { id, target, mode: Mode::Sidecar, content }))
}

fn same_pod(target: &TargetPath, identity: &WorkloadIdentity) -> Result<(), Invalid> {
    if *target.pod_uid() == identity.pod_uid {
        return Ok(());
    }
    Err(Invalid::OtherPod(target.pod_uid().to_string(), identity.pod_uid.to_string()))
}

fn spec(
    attributes: VolumeAttributes,
    capability: Capability,
    target: &TargetPath,
    driver: &Driver,
) -> Result<VolumeSpec, Invalid> {
    let VolumeAttributes { identity, class, refresh, max_stale, optional } = attributes;
    same_pod(target, &identity)?;
    Ok(VolumeSpec {
        identity,
        class,
        mount_group: group_of(&capability.group)?,
        refresh_ms: refresh.map(milliseconds),
        max_stale_ms: max_stale.map(milliseconds),
        optional,
        mode: Mode::Node,
        own_users: false,
        selinux_context: context_of(capability.flags, driver)?,
    })
}

fn with_tokens(
    spec: VolumeSpec,
    tokens: Option<SecretBytes>,
    publish_secrets: SecretBytes,
) -> Result<Content, Invalid> {
    let tokens = tokens.ok_or(Invalid::NoTokens)?;
    if tokens.len() > MAX_TOKENS_BYTES {
        return Err(Invalid::TokensTooLarge(tokens.len()));
    }
    if publish_secrets.len() > MAX_PUBLISH_SECRETS_BYTES {
        return Err(Invalid::PublishSecretsTooLarge(publish_secrets.len()));
    }
    Ok(Content { spec, credentials: Credentials { tokens, publish_secrets } })
}

/// Checks NodeUnpublishVolume.
///
/// # Errors
/// The first check that fails.
pub fn unpublish(
    request: &NodeUnpublishVolumeRequest,
    driver: &Driver,
) -> Result<(VolumeId, TargetPath), Invalid> {
    let id = volume_id_of(request.volume_id.clone())?;
    let target = target_of(&request.target_path, driver)?;
    Ok((id, target))
}

/// Checks NodeGetVolumeStats and finds the volume.
///
/// # Errors
/// The first check that fails.
pub fn stats(request: &NodeGetVolumeStatsRequest, driver: &Driver) -> Result<Arc<Volume>, Invalid> {
    let id = volume_id_of(request.volume_id.clone())?;
    if request.volume_path.is_empty() {
        return Err(Invalid::Missing("volume path"));
    }
    let volume = driver.volumes.get(&id);
    volume
        .filter(|volume| driver.kubelet.target(&request.volume_path).as_ref() == Ok(&volume.target))
        .ok_or_else(|| Invalid::NotFound(id.to_string()))
}

/// Whether it is about a volume with a sidecar's socket.
pub(super) fn is_handoff(request: &NodeGetVolumeStatsRequest, driver: &Driver) -> bool {
    let target = driver.kubelet.target(&request.volume_path);
    let id = VolumeId::parse(request.volume_id.clone());
    matches!((target, id), (Ok(target), Ok(id)) if driver.pods.has_handoff(target.pod_uid(), &id))
}

fn volume_id_of(id: String) -> Result<VolumeId, Invalid> {
    if id.is_empty() {
        return Err(Invalid::Missing("volume id"));
    }
    Ok(VolumeId::parse(id)?)
}

fn target_of(path: &str, driver: &Driver) -> Result<TargetPath, Invalid> {
    if path.is_empty() {
        return Err(Invalid::Missing("target path"));
    }
    Ok(driver.kubelet.target(path)?)
}

struct Capability {
    group: String,
    flags: Vec<String>,
}

fn mount_of(capability: Option<VolumeCapability>) -> Result<Capability, Invalid> {
    match capability.ok_or(Invalid::Missing("volume capability"))?.access_type {
        Some(AccessType::Mount(mount)) => {
            Ok(Capability { group: mount.volume_mount_group, flags: mount.mount_flags })
        }
        Some(AccessType::Block(_)) => Err(Invalid::Block),
        None => Err(Invalid::Missing("volume capability's access type")),
    }
}

fn group_of(text: &str) -> Result<Option<u32>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    // The largest number means "no group" to the kernel.
    match text.parse() {
        Ok(gid) if gid != u32::MAX => Ok(Some(gid)),
        Ok(_) | Err(_) => Err(Invalid::Group(text.chars().take(20).collect())),
    }
}

/// kubelet sends a context on nodes with SELinux; elsewhere the kernel would refuse one.
fn context_of(flags: Vec<String>, driver: &Driver) -> Result<Option<String>, Invalid> {
    let mut context = driver.settings.selinux_context.clone();
    for flag in flags {
        match flag.strip_prefix(CONTEXT_FLAG) {
            Some(label) => context = Some(label.trim_matches('"').to_owned()),
            None => return Err(Invalid::MountFlag(flag.chars().take(80).collect())),
        }
    }
    Ok(context.filter(|_| driver.settings.has_selinux))
}

/// The tokens from `secrets` first, then from the context: both occur while a cluster changes over. The other
/// secrets are those of the volume's `nodePublishSecretRef`. No copy of the text stays behind.
fn take_secrets(
    secrets: BTreeMap<String, String>,
    context: &mut BTreeMap<String, String>,
) -> (Option<SecretBytes>, SecretBytes) {
    let mut tokens = context.remove(SERVICE_ACCOUNT_TOKENS).map(SecretString::new);
    let mut others = BTreeMap::new();
    for (key, value) in secrets {
        let value = SecretString::new(value);
        if key == SERVICE_ACCOUNT_TOKENS {
            tokens = Some(value);
        } else {
            others.insert(key, value);
        }
    }
    let tokens = tokens.map(SecretBytes::from).filter(|tokens| !tokens.is_empty());
    (tokens, publish_secrets(&others))
}

#[cfg(test)]
mod tests;
