//! Fetches a key set over TLS from the issuer, whose CA the administrator pins.

use std::path::PathBuf;

use http::{HeaderMap, Method, Uri};
use sotto_store::http::{HttpsClient, Outgoing, TlsError, TlsFiles};

use super::{Boxed, FetchKeys, KEYS_DEADLINE, KeysError};
use crate::token::keys::MAX_SET_BYTES;

/// A key set at an `https` address.
pub struct HttpsKeys {
    address: String,
    uri: Uri,
    client: HttpsClient,
}

impl HttpsKeys {
    /// Trusts only the certificates in `ca`. Reads that file, so it blocks.
    ///
    /// # Errors
    /// The file can't be used.
    pub fn new(uri: Uri, ca: PathBuf) -> Result<Self, TlsError> {
        let files = TlsFiles {
            ca: ca.into(),
            client_certificate: None,
            client_key: None,
            server_name: None,
        };
        let client = HttpsClient::new(files)?;
        Ok(Self { address: uri.to_string(), uri, client })
    }

    async fn get(&self) -> Result<Vec<u8>, KeysError> {
        let request = Outgoing {
            method: Method::GET,
            uri: self.uri.clone(),
            headers: HeaderMap::new(),
            body: Default::default(),
            deadline: KEYS_DEADLINE,
            max_bytes: MAX_SET_BYTES,
        };
        let answer =
            self.client.send(request).await.map_err(|error| self.failed(error.to_string()))?;
        if answer.status.is_success() {
            Ok(answer.body.expose().to_vec())
        } else {
            // A redirect too: the administrator names the place where the keys are.
            Err(self.failed(format!("the answer is {}", answer.status)))
        }
    }

    fn failed(&self, reason: String) -> KeysError {
        KeysError::Unreadable { from: self.address.clone(), reason }
    }
}

impl FetchKeys for HttpsKeys {
    fn address(&self) -> &str {
        &self.address
    }

    fn fetch(&self) -> Boxed<'_, Result<Vec<u8>, KeysError>> {
        Box::pin(self.get())
    }
}

#[cfg(test)]
mod tests;
