//! What there is to say in sidecar mode alone.

use std::io::{self, Write};

use super::heading;
use crate::demo::paint::Paint;
use crate::demo::report::Report;

/// Who tried the pod's socket.
pub(super) fn socket(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if report.socket.is_empty() {
        return Ok(());
    }
    heading(
        out,
        paint,
        11,
        "The pod's socket, tried by others: refused, and on sotto-node's audit log",
    )?;
    for attempt in &report.socket {
        writeln!(out, "   {}:", paint.name(&attempt.who))?;
        writeln!(out, "     {}", paint.bad(&attempt.reason))?;
    }
    Ok(())
}

/// The memory of the node's processes.
pub(super) fn search(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Some(search) = &report.search else { return Ok(()) };
    heading(out, paint, 12, "The node's memory, searched while the pod lives, as root")?;
    let values = format!("{} values", search.values);
    writeln!(out, "   {:<22} {:>12} {values:>12} {:>16}", "", "the token", "a planted canary")?;
    for process in &search.processes {
        writeln!(
            out,
            "   {:<10} pid {:<7} {:>12} {:>12} {:>16}",
            process.name, process.pid, process.token, process.secrets, process.canary
        )?;
    }
    let hits = format!("{} hits", search.hits());
    let hits = if search.hits() == 0 { paint.good(hits) } else { paint.bad(hits) };
    writeln!(out, "   token and secrets: {hits}; the canary is found in each of them")?;
    match search.hidden_in_the_sidecar {
        Some(bytes) => writeln!(
            out,
            "   the sidecar has the values in {} KiB of memfd_secret, which nobody reads by /proc/PID/mem, root included",
            bytes / 1024
        ),
        None => writeln!(
            out,
            "   the sidecar has the values in locked memory: this kernel has no memfd_secret"
        ),
    }
}
