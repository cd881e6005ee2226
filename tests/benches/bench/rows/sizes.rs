//! Rows: the binaries that were measured, as they ship: stripped.

use std::path::Path;

use sotto_dev::bao::Bao;
use sotto_dev::node::Binaries;

use super::Bench;
use crate::report::Bound::AtMost;
use crate::report::{Figure, Row, State};
use crate::stats::Samples;

pub(crate) const GROUP: &str = "sizes";
const MB: f64 = 1e6;

pub(crate) async fn measure(_bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let directory = Binaries::find()?.directory;
    let megabytes = |path: &Path| Some(std::fs::metadata(path).ok()?.len() as f64 / MB);
    let peer = megabytes(&Bao::installed_at()).map(Samples::one).unwrap_or_default();
    let wanted = [
        ("driver", "sotto-csi", 3.0),
        ("sidecar", "sotto-agent", 7.0),
        ("node agent", "sotto-node", 12.0),
    ];
    let rows = wanted.into_iter().map(|(what, name, most)| {
        let size = megabytes(&directory.join(name));
        let is_there = size.is_some();
        let row = Row::new(
            GROUP,
            format!("binary, stripped: {what}"),
            "MB",
            size.map(Samples::one).unwrap_or_default(),
        );
        let row = match name {
            "sotto-csi" => row.note(
                "HTTP/2 and gRPC, on unix sockets only, by h2 and hyper: of tonic the services alone, not its client and server",
            ),
            _ => row,
        };
        let mut row = row.beside("bao", peer.clone()).goal(Figure::Ours, AtMost(most));
        if !is_there {
            row.state = State::NotBuilt(name);
        }
        row
    });
    Ok(rows.collect())
}
