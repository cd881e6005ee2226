//! At start: what the journal says and what is mounted are made to agree.
//!
//! Invariant: no mount is touched, only the mount table is read. A mount that an earlier process made goes
//! on being served by the agent that holds its connection; this process has no fd of it until the agent gives
//! one back.

use std::io;

use sotto_core::identity::VolumeId;

use crate::driver::Driver;
use crate::journal::Entry;
use crate::mount;
use crate::mountinfo::{self, Mount};
use crate::target::{KubeletDir, TargetPath, is_gone};
use crate::volume::Volume;

/// Takes the journal's volumes that are mounted into the table, and removes what is left of the others.
///
/// # Errors
/// The journal or the mount table can't be read.
pub fn reconcile(driver: &Driver) -> io::Result<()> {
    let mounts = mountinfo::read()?;
    for entry in driver.journal.load()? {
        match mounted_target(&driver.kubelet, &mounts, &entry) {
            Ok(target) => {
                let init = entry.init();
                let Entry { volume_id, spec, .. } = entry;
                tracing::info!(volume = %volume_id, %target, "mounted by an earlier process");
                driver.volumes.insert(Volume::new(volume_id, target, spec, init, None));
            }
            Err(target) => {
                tracing::warn!(volume = %entry.volume_id, "the rest of a volume is removed");
                if let Some(target) = target {
                    remove_directory(driver, &mounts, &target);
                }
                driver.journal.forget(&entry.volume_id)?;
            }
        }
    }
    warn_of_strays(driver, &mounts);
    Ok(())
}

/// The target if the entry's volume is mounted there; else the target if it is one at all.
fn mounted_target(
    kubelet: &KubeletDir,
    mounts: &[Mount],
    entry: &Entry,
) -> Result<TargetPath, Option<TargetPath>> {
    let target = TargetPath::from_relative(&entry.target).map_err(|_| None)?;
    let top = mountinfo::top_at(mounts, &kubelet.mount_point(&target));
    if top.and_then(mount::volume_of).as_ref() == Some(&entry.volume_id) {
        Ok(target)
    } else {
        Err(Some(target))
    }
}

fn remove_directory(driver: &Driver, mounts: &[Mount], target: &TargetPath) {
    if mountinfo::top_at(mounts, &driver.kubelet.mount_point(target)).is_some() {
        return; // somebody else's
    }
    let removed = driver.kubelet.open_parent(target).and_then(|parent| parent.remove_target());
    match removed {
        Ok(()) => {}
        Err(error) if is_gone(&error) => {}
        Err(error) => tracing::warn!(%target, %error, "a directory is left behind"),
    }
}

/// A mount of ours without an entry is found by its source when kubelet calls again.
fn warn_of_strays(driver: &Driver, mounts: &[Mount]) {
    let beneath = |mount: &&Mount| mount.mount_point.starts_with(driver.kubelet.path());
    // A subPath bind of a volume has another root.
    let whole = |mount: &&Mount| mount.root == std::path::Path::new("/");
    let ids = mounts.iter().filter(beneath).filter(whole).filter_map(mount::volume_of);
    for id in ids.filter(|id: &VolumeId| driver.volumes.get(id).is_none()) {
        tracing::warn!(volume = %id, "a mount of this driver is not in its journal");
    }
}
