//! A port of loopback that stays ours while nobody listens on it: an outage must not lend it to another process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

const BACKLOG: u32 = 1024;

/// The port; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    /// Bound, and never listening: whoever connects meanwhile is refused.
    _reserved: TcpSocket,
}

impl Port {
    /// Any free one.
    pub(crate) fn reserve() -> io::Result<Self> {
        let reserved = socket((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: reserved.local_addr()?, _reserved: reserved })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens on it, until the listener is dropped.
    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        socket(self.address)?.listen(BACKLOG)
    }
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpStream;

    const DEADLINE: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_millis(1);

    /// Waits until whoever connects is refused. Not at once: a child that another test starts has a copy of each descriptor
    /// until its exec, and so listens for as long.
    async fn refused(address: SocketAddr) {
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(DEADLINE, refused).await.expect("somebody listens for ever");
    }

    #[tokio::test]
    async fn it_is_refused_while_nobody_listens_and_can_be_listened_on_again() {
        let port = Port::reserve().unwrap();
        assert!(TcpStream::connect(port.address()).await.is_err());
        for _ in 0..2 {
            let listener = port.listen().unwrap();
            TcpStream::connect(port.address()).await.unwrap();
            drop(listener);
            refused(port.address()).await;
        }
    }
}
