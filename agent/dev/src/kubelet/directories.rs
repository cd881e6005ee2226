//! The directories of a pod's volumes: kubelet makes all but the target, and `vol_data.json`.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::manifest::{CsiVolume, Pod};
use super::request::volume_id;

const DIRECTORY_MODE: u32 = 0o750;
const VOLUME_DATA: &str = "vol_data.json";

/// Where a volume's directories are.
#[derive(Debug, Clone)]
pub(super) struct Directories {
    pod: PathBuf,
    volume: PathBuf,
}

impl Directories {
    pub(super) fn new(kubelet: &Path, pod: &Pod, volume: &CsiVolume) -> Self {
        let pod = kubelet.join("pods").join(&pod.uid);
        let volume = pod.join("volumes/kubernetes.io~csi").join(&volume.name);
        Self { pod, volume }
    }

    pub(super) fn target(&self) -> PathBuf {
        self.volume.join("mount")
    }

    /// Makes the target's parent and writes `vol_data.json`; the target is the driver's.
    pub(super) fn create(&self, node: &str, pod: &Pod, volume: &CsiVolume) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.volume)?;
        let id = volume_id(pod, volume);
        let data = json!({
            "attachmentID": id, "driverName": volume.driver, "nodeName": node,
            "specVolID": volume.name, "volumeHandle": id, "volumeLifecycleMode": "Ephemeral",
        });
        fs::write(self.volume.join(VOLUME_DATA), data.to_string())
    }

    /// Whether the driver's directory is there. Lists the parent: a stat of an unserved mount hangs.
    pub(super) fn has_target(&self) -> io::Result<bool> {
        match fs::read_dir(&self.volume) {
            Ok(mut entries) => {
                entries.try_fold(false, |found, entry| Ok(found || entry?.file_name() == "mount"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes what [`Self::create`] made, and the pod's directories once no volume is left.
    pub(super) fn remove(&self) -> io::Result<()> {
        accept_missing(fs::remove_file(self.volume.join(VOLUME_DATA)))?;
        accept_missing(fs::remove_dir(&self.volume))?;
        for above in self.volume.ancestors().skip(1).take_while(|it| it.starts_with(&self.pod)) {
            match fs::remove_dir(above) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                result => accept_missing(result)?,
            }
        }
        Ok(())
    }
}

/// The ids of the volumes whose `vol_data.json` a kubelet finds when it starts.
pub(super) fn volumes(kubelet: &Path) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for pod in entries(&kubelet.join("pods"))? {
        for volume in entries(&pod.join("volumes/kubernetes.io~csi"))? {
            let data = match fs::read(volume.join(VOLUME_DATA)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                data => data?,
            };
            let data: Value = serde_json::from_slice(&data)?;
            found.extend(data["volumeHandle"].as_str().map(str::to_owned));
        }
    }
    Ok(found)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

fn accept_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
