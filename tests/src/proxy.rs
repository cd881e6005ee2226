//! The network between the agents and a store, to be cut and to be frozen. It sees ciphertext only.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A port on loopback that leads to a store.
pub struct Proxy {
    address: SocketAddr,
    upstream: Arc<Mutex<Option<SocketAddr>>>,
    /// Connections made up to this number carry nothing any more.
    frozen: watch::Sender<usize>,
    made: Arc<AtomicUsize>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Listens; leads nowhere yet.
    ///
    /// # Errors
    /// No port.
    pub async fn start() -> io::Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// The same at this address.
    ///
    /// # Errors
    /// It is taken.
    pub async fn at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let proxy = Self {
            address: listener.local_addr()?,
            upstream: Arc::default(),
            frozen: watch::Sender::new(0),
            made: Arc::default(),
            task: Mutex::default(),
        };
        proxy.serve(listener);
        Ok(proxy)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads there from now on.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Every connection ends, and new ones are refused.
    pub fn cut(&self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn mend(&self) -> io::Result<()> {
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    /// The connections that there are carry nothing any more, in neither direction, and neither end is told; new
    /// ones work.
    pub fn freeze(&self) {
        self.frozen.send_replace(self.connections());
    }

    fn serve(&self, listener: TcpListener) {
        let (upstream, made) = (Arc::clone(&self.upstream), Arc::clone(&self.made));
        let frozen = self.frozen.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let number = made.fetch_add(1, Ordering::SeqCst) + 1;
                let to = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
                let frozen = frozen.clone();
                connections.spawn(async move {
                    if let Some(to) = to
                        && let Ok(far) = TcpStream::connect(to).await
                    {
                        carry(near, far, number, frozen).await;
                    }
                });
            }
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn carry(near: TcpStream, far: TcpStream, number: usize, frozen: watch::Receiver<usize>) {
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let mut there = JoinSet::new();
    there.spawn(pump(near_in, far_out, number, frozen.clone()));
    there.spawn(pump(far_in, near_out, number, frozen));
    while there.join_next().await.is_some() {}
}

/// Returns once the connection carries nothing any more.
async fn frozen_at(frozen: &mut watch::Receiver<usize>, number: usize) {
    if frozen.wait_for(|frozen| *frozen >= number).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    number: usize,
    mut frozen: watch::Receiver<usize>,
) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = tokio::select! {
            biased;
            () = frozen_at(&mut frozen, number) => {
                // Both halves stay open, and nobody reads.
                std::future::pending::<()>().await;
                return;
            }
            read = from.read(&mut bytes) => read,
        };
        match read {
            Ok(size @ 1..) if to.write_all(&bytes[..size]).await.is_ok() => {}
            Ok(_) | Err(_) => {
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn asked(stream: &mut TcpStream) -> Option<u8> {
        let _ = stream.write_all(b"x").await;
        let answer = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
        answer.ok()?.ok()
    }

    #[tokio::test]
    async fn it_carries_freezes_and_cuts() {
        let proxy = Proxy::start().await.unwrap();
        proxy.lead_to(echo().await);
        let mut first = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(asked(&mut first).await, Some(b'x'));
        proxy.freeze();
        assert_eq!(asked(&mut first).await, None);
        let mut second = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(asked(&mut second).await, Some(b'x'), "new ones work");
        proxy.cut();
        while TcpStream::connect(proxy.address()).await.is_ok() {}
        proxy.mend().await.unwrap();
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(asked(&mut third).await, Some(b'x'));
    }
}
