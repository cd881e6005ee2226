//! The parameter `objects`: a YAML list in a string.

mod names;
mod raw;

use sotto_core::limits::Limits;
use sotto_core::names::ObjectPath;

use super::error::{ObjectFault, PlanError};
use super::permission;
use crate::plan::{Encoding, ObjectPlan, Pick, ReadMethod, ReadRequest, SecretPath};
use crate::text;

use names::Names;
use raw::RawObject;

/// What the list asks for.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) objects: Vec<ObjectPlan>,
    pub(super) requests: Vec<ReadRequest>,
    pub(super) picks: Vec<Pick>,
}

/// Reads the list; what it returns counts only if no fault was added.
pub(super) fn read(
    text: Option<&str>,
    limits: &Limits,
    warnings: &mut Vec<String>,
    faults: &mut Vec<PlanError>,
) -> Objects {
    let raw = match text.map(raw::parse) {
        Some(Ok(raw)) if !raw.is_empty() => raw,
        Some(Ok(_)) | None => {
            faults.push(PlanError::NoObjects);
            return Objects::default();
        }
        Some(Err(reason)) => {
            faults.push(PlanError::NotObjects(reason));
            return Objects::default();
        }
    };
    if raw.len() > limits.objects {
        let (count, limit) = (raw.len(), limits.objects);
        faults.push(PlanError::TooManyObjects { count, limit });
        return Objects::default();
    }
    let mut reader = Reader { read: Objects::default(), names: Names::default() };
    for (index, object) in raw.into_iter().enumerate() {
        let name = object.label();
        let named = |text: String| format!("object {index} ({name}): {text}");
        warnings.extend(object.warnings().into_iter().map(named));
        let mut here = Vec::new();
        reader.add(index, object, &mut here);
        let outside = |fault| PlanError::Object { index, name: name.clone(), fault };
        faults.extend(here.into_iter().map(outside));
    }
    reader.read
}

struct Reader {
    read: Objects,
    names: Names,
}

impl Reader {
    fn add(&mut self, index: usize, raw: RawObject, faults: &mut Vec<ObjectFault>) {
        let path = keep(self.name(index, raw.name.as_deref()), faults);
        let mode = keep(permission::parse(&raw.permission).map_err(Into::into), faults);
        let encoding = keep(encoding(raw.encoding.as_deref()), faults);
        let request = keep_request(raw.path.as_deref(), raw.method.as_deref(), raw.args, faults);
        let (Some(path), Some(mode), Some(encoding), Some(request)) =
            (path, mode, encoding, request)
        else {
            return;
        };
        let request = self.request(request);
        self.read.objects.push(ObjectPlan { path, mode });
        self.read.picks.push(Pick { request, key: raw.key, encoding });
    }

    fn name(&mut self, index: usize, name: Option<&str>) -> Result<ObjectPath, ObjectFault> {
        let path = ObjectPath::parse(name.ok_or(ObjectFault::NoName)?)?;
        self.names.add(index, &path)?;
        Ok(path)
    }

    /// The index of an equal request, or of a new one.
    fn request(&mut self, request: ReadRequest) -> usize {
        let known = self.read.requests.iter().position(|known| *known == request);
        known.unwrap_or_else(|| {
            self.read.requests.push(request);
            self.read.requests.len() - 1
        })
    }
}

fn keep_request(
    path: Option<&str>,
    method: Option<&str>,
    args: Option<serde_json::Map<String, serde_json::Value>>,
    faults: &mut Vec<ObjectFault>,
) -> Option<ReadRequest> {
    let parsed = path.ok_or(ObjectFault::NoPath);
    let path = keep(parsed.and_then(|path| Ok(SecretPath::parse(path)?)), faults);
    let method = keep(read_method(method), faults);
    let (path, method) = (path?, method?);
    // A store ignores the body of a GET.
    let args = args.filter(|_| method != ReadMethod::Get);
    Some(ReadRequest { method, path, args })
}

fn read_method(method: Option<&str>) -> Result<ReadMethod, ObjectFault> {
    match method {
        None | Some("GET") => Ok(ReadMethod::Get),
        Some("PUT") => Ok(ReadMethod::Put),
        Some("POST") => Ok(ReadMethod::Post),
        Some(other) => Err(ObjectFault::Method(text::excerpt(other))),
    }
}

fn encoding(encoding: Option<&str>) -> Result<Encoding, ObjectFault> {
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("utf-8") => Ok(Encoding::Utf8),
        Some("base64") => Ok(Encoding::Base64),
        Some("hex") => Ok(Encoding::Hex),
        Some(other) => Err(ObjectFault::Encoding(text::excerpt(other))),
    }
}

fn keep<T>(result: Result<T, ObjectFault>, faults: &mut Vec<ObjectFault>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}
