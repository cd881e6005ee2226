//! A driver's part in a rotation: the operations that its helper makes, as the kernel hands them on.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sotto_handoff::link::{Answer, Handler, Link, NoRequests};
use sotto_handoff::message::frame::Body;
use sotto_handoff::message::{Code, Retired, Rotated};
use sotto_handoff::packet::Connection;
use sotto_handoff::refusal::Refusal;

use super::fixture::Fixture;
use super::kernel::Kernel;

const ROOT: u64 = 1;
const MAKE_LINK: u32 = 6;
const MAKE_DIRECTORY: u32 = 9;
const RENAME: u32 = 45;

/// Turns the volumes whose kernels it has.
#[derive(Default)]
pub(super) struct FakeDriver(Mutex<BTreeMap<String, Kernel>>);

impl FakeDriver {
    /// A driver that the fixture's volumes reach.
    pub(super) fn linked(fixture: &Fixture) -> Arc<Self> {
        let driver = Arc::new(Self::default());
        let (agents, drivers) = Connection::pair().unwrap();
        let (link, agents_end) = Link::start(agents, Arc::new(NoRequests), 4);
        let (_, drivers_end) = Link::start(drivers, Arc::clone(&driver), 4_096);
        // They end with the test's runtime.
        tokio::spawn(agents_end);
        tokio::spawn(drivers_end);
        fixture.links.send_replace(Some(link));
        driver
    }

    /// Serves a prepared volume.
    pub(super) async fn serve(&self, fixture: &Fixture, volume: &str) -> Kernel {
        let kernel = Kernel::serve(fixture, volume, false).await.unwrap();
        self.0.lock().unwrap().insert(volume.to_owned(), kernel.clone());
        kernel
    }

    fn turn(&self, volume: &str, generation: u64) {
        let kernel = self.0.lock().unwrap().get(volume).cloned().expect("a volume that is served");
        let name = format!("..{generation}\0");
        kernel.ask(MAKE_DIRECTORY, ROOT, 0, &[&[0; 8], name.as_bytes()].concat()).unwrap();
        let link = [b"..data_tmp\0", name.as_bytes()].concat();
        kernel.ask(MAKE_LINK, ROOT, 0, &link).unwrap();
        let rename = [&ROOT.to_ne_bytes()[..], &[0; 8], b"..data_tmp\0..data\0"].concat();
        kernel.ask(RENAME, ROOT, 0, &rename).unwrap();
    }
}

impl Handler for FakeDriver {
    async fn handle(&self, body: Body, _: Option<OwnedFd>) -> Result<Answer, Refusal> {
        match body {
            Body::Rotate(request) => {
                // A volume may want to turn before it is noted that it is served.
                while !self.0.lock().unwrap().contains_key(&request.volume_id) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.turn(&request.volume_id, request.generation);
                Ok(Body::Rotated(Rotated {}).into())
            }
            Body::Retire(_) => Ok(Body::Retired(Retired { bound: false }).into()),
            _ => Err(Refusal::new(Code::Unimplemented, "not played here")),
        }
    }
}
