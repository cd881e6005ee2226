//! `sidecar`: what the sidecar of an injected pod may be.

use serde::Deserialize;
use serde_json::json;

use super::Fault;
use super::section::{self, Section};

/// What the sidecar of an injected pod may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sidecar {
    /// Its images, as pods name them; with none listed every image passes.
    pub images: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    images: Vec<String>,
}

pub(super) fn read(root: &mut Section, faults: &mut Vec<Fault>) -> Option<Sidecar> {
    let raw = root.take("sidecar").unwrap_or_else(|| json!({}));
    let Raw { images } = section::read(raw, "sidecar", &[], faults)?;
    for (index, image) in images.iter().enumerate() {
        if image.is_empty() || !image.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = "not an image: write it as the webhook's configuration has it";
            faults.push(Fault::new(format!("sidecar.images[{index}]"), message));
        }
    }
    Some(Sidecar { images })
}
