//! A store that the administrator moves: another server under the same name in sotto-node's configuration.

use anyhow::Context;
use serde_json::{Value, json};
use sotto_dev::test_store::{StoreAccess, TestStore};

use crate::scene::Scene;

impl<S: TestStore> Scene<S> {
    /// The configuration's first store is at another server from now on, by another CA; sotto-node is started with it.
    ///
    /// # Errors
    /// A file can't be written, or sotto-node doesn't start.
    pub async fn move_store_to(&mut self, access: &StoreAccess) -> anyhow::Result<()> {
        let ca = self.node().path("etc").join(format!("moved-{}.pem", access.address.port()));
        std::fs::copy(&access.ca, &ca)?;
        let file = self.node().path("etc/config.yaml");
        let mut config: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
        let store = config["stores"].get_mut(0).context("the configuration has a store")?;
        (store["address"], store["ca"]) = (json!(access.url()), json!(ca));
        std::fs::write(&file, serde_saphyr::to_string(&config)?)?;
        Ok(self.node_mut().restart_agent().await?)
    }
}
