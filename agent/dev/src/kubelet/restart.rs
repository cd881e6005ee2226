//! kubelet's own restart: what it held in memory is gone, what it finds on its disk is known again.

use std::time::Duration;

use super::error::in_directory;
use super::{Kubelet, KubeletError, Registered, directories};

impl Kubelet {
    /// Ends and starts again: forgets the registration and the pods' tokens, finds its volumes by their
    /// `vol_data.json`, and waits until the driver has registered again. Then it publishes what it knows:
    /// that is [`Kubelet::reconstruct`], which the caller sends for each pod.
    ///
    /// # Errors
    /// Its directory can't be read, or nobody registers within `deadline`.
    pub async fn restart(&self, deadline: Duration) -> Result<Registered, KubeletError> {
        self.plugins.forget();
        self.tokens.forget();
        let found = directories::volumes(&self.settings.directory).map_err(in_directory)?;
        *self.to_unpublish() = found;
        self.register(deadline).await
    }
}
