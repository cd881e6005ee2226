//! A store's host: scheme https, name and port, nothing else.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

const DEFAULT_PORT: u16 = 443;

/// `https://host:port`. Two spellings of one host and port are equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    host: String,
    port: u16,
}

/// Why an address can't be a store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Not an absolute URL.
    #[error("not an address: write https://host:port")]
    NotAnAddress,
    /// Not encrypted, or another scheme.
    #[error("must begin with https://: secrets are only fetched over TLS")]
    NotHttps,
    /// A user name or password in it.
    #[error("has a user name in it: remove it")]
    UserInfo,
    /// More than a host and a port.
    #[error("has a path or a query: write https://host:port only")]
    PathOrQuery,
}

impl Origin {
    /// Parses `https://host[:port]`, with or without a slash at the end.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let uri: Uri = text.trim().parse().map_err(|_| OriginError::NotAnAddress)?;
        Self::of(&uri).and_then(|origin| {
            let bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
            if bare { Ok(origin) } else { Err(OriginError::PathOrQuery) }
        })
    }

    /// The origin of an absolute URL, whatever its path.
    ///
    /// # Errors
    /// It isn't absolute, not https, or names a user.
    pub fn of(uri: &Uri) -> Result<Self, OriginError> {
        let authority = uri.authority().ok_or(OriginError::NotAnAddress)?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(OriginError::NotHttps);
        }
        if authority.as_str().contains('@') {
            return Err(OriginError::UserInfo);
        }
        let host = authority.host().to_ascii_lowercase();
        // `Authority::port` reads a number that is too large as no port at all.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => DEFAULT_PORT,
            Some(rest) => {
                let digits = rest.strip_prefix(':').filter(|text| !text.starts_with('+'));
                digits.and_then(|digits| digits.parse().ok()).ok_or(OriginError::NotAnAddress)?
            }
            None => return Err(OriginError::NotAnAddress),
        };
        if host.is_empty() { Err(OriginError::NotAnAddress) } else { Ok(Self { host, port }) }
    }

    /// The URL of a path on this host; `None` if the path can't be in a URL.
    #[must_use]
    pub fn url(&self, path_and_query: &str) -> Option<Uri> {
        let authority = format!("{}:{}", self.host, self.port).parse::<Authority>().ok()?;
        let rest = path_and_query.parse::<PathAndQuery>().ok()?;
        Uri::builder().scheme(Scheme::HTTPS).authority(authority).path_and_query(rest).build().ok()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host)?;
        if self.port == DEFAULT_PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_equal() {
        let origin = Origin::parse("https://bao.example:8200").unwrap();
        assert_eq!(Origin::parse("https://BAO.example:8200/").unwrap(), origin);
        assert_eq!(origin.to_string(), "https://bao.example:8200");
        let standard = Origin::parse("https://bao.example").unwrap();
        assert_eq!(Origin::parse("https://bao.example:443").unwrap(), standard);
        assert_eq!(standard.to_string(), "https://bao.example");
        assert_eq!(Origin::parse("https://[::1]:8200").unwrap().to_string(), "https://[::1]:8200");
    }

    #[test]
    fn what_is_not_an_https_host_is_refused() {
        for (text, error) in [
            ("http://bao.example:8200", OriginError::NotHttps),
            ("unix:///run/bao.sock", OriginError::NotAnAddress),
            ("bao.example:8200", OriginError::NotHttps),
            ("", OriginError::NotAnAddress),
            ("https://", OriginError::NotAnAddress),
            ("https://user:secret@bao.example", OriginError::UserInfo),
            ("https://bao.example/vault", OriginError::PathOrQuery),
            ("https://bao.example/?x=1", OriginError::PathOrQuery),
            ("https://bao.example:99999", OriginError::NotAnAddress),
            ("https://bao.example:", OriginError::NotAnAddress),
            ("https://bao.example:+443", OriginError::NotAnAddress),
        ] {
            assert_eq!(Origin::parse(text), Err(error), "{text:?}");
        }
    }
}
