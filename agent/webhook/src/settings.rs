//! What the administrator decides about every injected pod: one YAML file, read completely before anything
//! starts.
//!
//! Invariant: image, audience, log filter and the client certificate's volume come from here and from nowhere
//! else; a pod's author can only choose resources within the bounds. Every fault is reported at once. Called
//! by [`crate::app`] and the subcommands.

mod section;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};
use sotto_core::identity::Audience;

use crate::fault::{Fault, Faults};
use crate::quantity::{Cpu, Memory};
use section::Section;

/// Largest settings file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Sources that a volume with the client certificate may have: each is written for the pod itself.
const CERTIFICATE_SOURCES: &[&str] = &["csi", "projected", "secret"];
/// Infrastructure that other webhooks add: it needs no secrets of the application.
const SKIPPED: &[&str] = &[
    "istio-init",
    "istio-validation",
    "istio-proxy",
    "linkerd-init",
    "linkerd-network-validator",
    "linkerd-proxy",
];

/// Settings that can be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The sidecar's image.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: String,
    /// What the sidecar logs.
    pub log: String,
    /// The audience of the pod's token: that of the store.
    pub audience: Audience,
    /// CPU of the sidecar.
    pub cpu: CpuBounds,
    /// Memory of the sidecar.
    pub memory: MemoryBounds,
    /// The source of a volume with `tls.crt` and `tls.key` for mutual TLS, if the sidecar gets one.
    pub client_certificate: Option<Map<String, Value>>,
    /// Containers that get no secrets unless a pod's author names them.
    pub skip_containers: Vec<String>,
}

/// How much CPU the sidecar asks for. There is no limit: throttling would delay reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBounds {
    /// Where the pod says nothing; also the least that it may say.
    pub request: Cpu,
    /// The most that a pod may ask for.
    pub most: Cpu,
}

/// How much memory the sidecar asks for and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBounds {
    /// What the scheduler reserves; also the least limit that a pod may set.
    pub request: Memory,
    /// The limit where the pod says nothing.
    pub limit: Memory,
    /// The highest limit that a pod may set.
    pub most: Memory,
}

impl Settings {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// All faults at once.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        let text = read(file)
            .map_err(|error| Faults(vec![Fault::new(file.display().to_string(), error)]))?;
        Self::parse(&text)
    }

    /// As [`Self::load`], for the file's text.
    ///
    /// # Errors
    /// All faults at once.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        // Duplicate keys end here, with their line.
        let root: Value = serde_saphyr::from_str(text)
            .map_err(|error| Faults(vec![Fault::new("", format!("not YAML: {error}"))]))?;
        let mut faults = Vec::new();
        let mut root = Section::root(root, &mut faults);
        let mut agent = root.section("agent", &mut faults);
        let mut token = root.section("token", &mut faults);
        let skip_containers = root.texts("skipContainers", SKIPPED, &mut faults);
        let settings = Self {
            image: image(&mut agent, &mut faults),
            image_pull_policy: pull_policy(&mut agent, &mut faults),
            log: agent.text("log", Some("info"), &mut faults),
            audience: audience(&mut token, &mut faults),
            cpu: cpu(&mut agent, &mut faults),
            memory: memory(&mut agent, &mut faults),
            client_certificate: client_certificate(&mut agent, &mut faults),
            skip_containers,
        };
        for section in [agent, token, root] {
            section.finish(&mut faults);
        }
        if faults.is_empty() { Ok(settings) } else { Err(Faults(faults)) }
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn image(agent: &mut Section, faults: &mut Vec<Fault>) -> String {
    let before = faults.len();
    let image = agent.text("image", None, faults);
    let usable = !image.is_empty() && image.bytes().all(|byte| byte.is_ascii_graphic());
    if faults.len() == before && !usable {
        faults.push(Fault::new("agent.image", "not an image: write e.g. registry/name@sha256:..."));
    }
    image
}

fn pull_policy(agent: &mut Section, faults: &mut Vec<Fault>) -> String {
    let policy = agent.text("imagePullPolicy", Some("IfNotPresent"), faults);
    if !["Always", "IfNotPresent", "Never"].contains(&policy.as_str()) {
        let message = "write Always, IfNotPresent or Never";
        faults.push(Fault::new("agent.imagePullPolicy", message));
    }
    policy
}

fn audience(token: &mut Section, faults: &mut Vec<Fault>) -> Audience {
    let before = faults.len();
    let text = token.text("audience", None, faults);
    Audience::parse(text).unwrap_or_else(|error| {
        if faults.len() == before {
            faults.push(Fault::new("token.audience", error));
        }
        Audience::parse("none").expect("a plain word is an audience")
    })
}

fn cpu(agent: &mut Section, faults: &mut Vec<Fault>) -> CpuBounds {
    let mut section = agent.section("cpu", faults);
    let request = section.parsed("request", "10m", Cpu::parse, faults);
    let most = section.parsed("most", "500m", Cpu::parse, faults);
    section.finish(faults);
    if request > most {
        faults.push(Fault::new("agent.cpu.request", "more than agent.cpu.most"));
    }
    CpuBounds { request, most }
}

fn memory(agent: &mut Section, faults: &mut Vec<Fault>) -> MemoryBounds {
    let mut section = agent.section("memory", faults);
    let request = section.parsed("request", "16Mi", Memory::parse, faults);
    let limit = section.parsed("limit", "64Mi", Memory::parse, faults);
    let most = section.parsed("most", "256Mi", Memory::parse, faults);
    section.finish(faults);
    if request > limit {
        faults.push(Fault::new("agent.memory.request", "more than agent.memory.limit"));
    }
    if limit > most {
        faults.push(Fault::new("agent.memory.limit", "more than agent.memory.most"));
    }
    MemoryBounds { request, limit, most }
}

fn client_certificate(agent: &mut Section, faults: &mut Vec<Fault>) -> Option<Map<String, Value>> {
    let source = agent.take("clientCertificate")?;
    match source {
        Value::Object(source)
            if source.len() == 1
                && source.keys().all(|key| CERTIFICATE_SOURCES.contains(&key.as_str()))
                && source.values().all(Value::is_object) =>
        {
            Some(source)
        }
        _ => {
            let message = "write the source of one volume: csi, projected or secret";
            faults.push(Fault::new("agent.clientCertificate", message));
            None
        }
    }
}

#[cfg(test)]
mod tests;
