//! The report in plain words.

mod sidecar;

use std::io::{self, Write};

use serde_json::Value;

use super::Mode;
use super::paint::Paint;
use super::reader::Entry;
use super::report::Report;

/// Writes the whole report.
pub(super) fn write(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{}\n", paint.title("Sotto: a pod's secrets, delivered"))?;
    pod(report, paint, out)?;
    class(report, paint, out)?;
    store(report, paint, out)?;
    tree(report, paint, out)?;
    content(report, paint, out)?;
    intruder(report, paint, out)?;
    change(report, paint, out)?;
    withdrawal(report, paint, out)?;
    heading(out, paint, 9, "Who asked and who opened what: the audit log")?;
    for record in &report.audit {
        writeln!(out, "   {}", audit_line(record, paint))?;
    }
    processes(report, paint, out)?;
    sidecar::socket(report, paint, out)?;
    sidecar::search(report, paint, out)?;
    end(report, paint, out)
}

fn heading(out: &mut impl Write, paint: Paint, number: u8, text: &str) -> io::Result<()> {
    writeln!(out, "\n{}", paint.title(format!("{number}  {text}")))
}

fn pod(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let text = |pointer: &str| report.claims.pointer(pointer).map(plain).unwrap_or_default();
    writeln!(out, "{}", paint.title("1  A pod starts"))?;
    writeln!(
        out,
        "   {}, service account {}; {}:",
        paint.name(&report.pod.name),
        paint.name(&report.pod.service_account),
        match report.mode {
            Mode::Node => "kubelet sends its token to the driver",
            Mode::Sidecar => "its token is in its own sidecar, and kubelet sends the driver none",
        }
    )?;
    let seconds = report.claims["exp"].as_i64().unwrap_or_default()
        - report.claims["iat"].as_i64().unwrap_or_default();
    for (key, value) in [
        ("iss", text("/iss")),
        ("sub", text("/sub")),
        ("aud", text("/aud")),
        ("pod", named(&report.claims["kubernetes.io"]["pod"])),
        ("node", named(&report.claims["kubernetes.io"]["node"])),
        ("exp", format!("{seconds} s after it was issued")),
    ] {
        writeln!(out, "     {} {value}", paint.dim(format!("{key:<5}")))?;
    }
    Ok(())
}

fn class(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let class = &report.class;
    heading(out, paint, 2, "It names a SecretProviderClass")?;
    writeln!(
        out,
        "   {} of {}, provider {}, role {}:",
        paint.name(&class.name),
        class.manifest,
        class.provider,
        class.role
    )?;
    for object in &class.objects {
        let from = format!("{}  {}", object.secret_path, object.secret_key);
        writeln!(out, "     {:<16} {} {from}", object.object_name, paint.dim("<-"))?;
    }
    Ok(())
}

fn store(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let store = &report.store;
    let who = match report.mode {
        Mode::Node => "sotto-node checks the token and asks the store, as that pod",
        Mode::Sidecar => "sotto-agent, in the pod, asks the store, as that pod",
    };
    heading(out, paint, 3, who)?;
    writeln!(
        out,
        "   store {} at {}: {} login, {} reads",
        paint.name(store.name),
        store.address,
        store.logins,
        store.reads
    )?;
    let tls = &store.tls;
    let version = tls.protocol.replace("TLSv1_", "TLS 1.");
    writeln!(
        out,
        "     {} {version}, {}, {}",
        paint.dim("tls   "),
        tls.cipher_suite,
        tls.key_exchange
    )?;
    writeln!(out, "     {} {}", paint.dim("server"), store.server)?;
    let client = tls.client.as_deref().unwrap_or("none");
    writeln!(out, "     {} {client} {}", paint.dim("client"), paint.dim("(by its certificate)"))
}

fn tree(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let seen = &report.seen;
    heading(out, paint, 4, "The container sees a file system in memory, at /mnt/secrets")?;
    writeln!(
        out,
        "   {}",
        paint.dim(format!("{} ({})", report.volume.shown_at, report.volume.mount))
    )?;
    for entry in &seen.entries {
        writeln!(out, "     {}", tree_line(entry, paint))?;
    }
    writeln!(out, "   a write there: {}", paint.bad(&seen.write))
}

fn tree_line(entry: &Entry, paint: Paint) -> String {
    let owner = format!("{}:{}", entry.uid, entry.gid);
    let columns = format!("{:<4} {owner:<7} {:>4}", entry.mode, entry.size);
    let name = match (&entry.target, entry.kind.as_str()) {
        (Some(target), _) => format!("{} -> {target}", paint.name(&entry.path)),
        (None, "directory") => format!("{}/", entry.path),
        (None, _) => entry.path.clone(),
    };
    format!("{} {name}", paint.dim(columns))
}

fn content(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let seen = &report.seen;
    let title = format!("And reads, as uid {} and gid {}", seen.uid, seen.gid);
    heading(out, paint, 5, &title)?;
    for file in &seen.files {
        for (number, line) in file.content.lines().enumerate() {
            let label = if number == 0 { file.name.as_str() } else { "" };
            writeln!(out, "     {label:<16} {}", paint.good(line))?;
        }
    }
    Ok(())
}

/// One audit record as a line for people.
pub(super) fn audit_line(record: &Value, paint: Paint) -> String {
    let text = |key: &str| record.get(key).map(plain).unwrap_or_default();
    let time = text("time");
    let time = time.split(['T', 'Z']).nth(1).unwrap_or_default();
    let decision = match text("decision").as_str() {
        "allowed" => paint.good(format!("{:<8}", "allowed")),
        other => paint.bad(format!("{other:<8}")),
    };
    let pod = format!("{}/{}", text("namespace"), text("pod_name"));
    let mut what: Vec<String> = Vec::new();
    for (key, label) in [
        ("object", ""),
        ("generation", "generation "),
        ("uid", "uid "),
        ("gid", "gid "),
        ("pid", "pid "),
        ("store", "store "),
        ("reason", ""),
    ] {
        if record.get(key).is_some() {
            what.push(shortened(&format!("{label}{}", text(key))));
        }
    }
    let action = format!("{:<13}", text("action"));
    format!("{} {action}{decision} {} {}", paint.dim(time), paint.name(pod), what.join("  "))
}

/// A reason can be as long as its class has objects.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 90;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn intruder(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let intruder = &report.intruder;
    heading(out, paint, 6, "Another service account asks for the same class")?;
    let (pod, account) = (paint.name(&intruder.pod), paint.name(&intruder.service_account));
    let says = match report.mode {
        Mode::Node => "its event says",
        Mode::Sidecar => "the audit record of its sidecar says",
    };
    writeln!(out, "   {pod}, service account {account}, isn't started; {says}:")?;
    for fault in intruder.error.split("; ") {
        writeln!(out, "     {}", paint.bad(fault))?;
    }
    let mounted = if intruder.mounted { "yes" } else { "no" };
    match report.mode {
        Mode::Node => writeln!(out, "   is anything mounted for it: {mounted}"),
        Mode::Sidecar => writeln!(out, "   would its application be started: {mounted}"),
    }
}

fn change(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let change = &report.live.change;
    heading(out, paint, 7, "The store gets a new value")?;
    let how = match report.mode {
        Mode::Node => "sotto-node refresh; by itself within the refresh interval",
        Mode::Sidecar => "by itself, within the refresh interval of 1 s",
    };
    writeln!(out, "   {} ms later ({how}):", change.milliseconds)?;
    writeln!(out, "     {:<16} {}", change.name, paint.dim(&change.before))?;
    writeln!(out, "     {:<16} {}", "", paint.good(&change.after))?;
    writeln!(out, "   a watcher of /mnt/secrets was told, as of any Kubernetes volume:")?;
    change.events.iter().try_for_each(|event| writeln!(out, "     {event}"))
}

fn withdrawal(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let withdrawal = &report.live.withdrawal;
    heading(out, paint, 8, "The store's policy for the pod is withdrawn, and put back")?;
    writeln!(
        out,
        "   {} ms later, confirmed by a second read, for {}:",
        withdrawal.milliseconds, withdrawal.name
    )?;
    writeln!(out, "     {:<20} {}", "an open", paint.bad(&withdrawal.opened))?;
    writeln!(out, "     {:<20} {}", "a file open before", paint.bad(&withdrawal.read_on))?;
    writeln!(out, "     {:<20} {}", "with the policy back", paint.good(&withdrawal.healed))
}

fn processes(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    heading(out, paint, 10, "Who did it, and what they may")?;
    for process in &report.processes {
        writeln!(
            out,
            "   {:<10} pid {:<8} uid {:<6} {}",
            paint.name(process.name),
            process.pid,
            process.uid,
            capabilities(&process.capabilities)
        )?;
    }
    Ok(())
}

/// `CapEff` of /proc/PID/status in words.
fn capabilities(mask: &str) -> String {
    const SYS_ADMIN: u64 = 1 << 21;
    match u64::from_str_radix(mask, 16) {
        Ok(0) => "no capability".to_owned(),
        Ok(SYS_ADMIN) => "CAP_SYS_ADMIN only".to_owned(),
        Ok(_) | Err(_) => format!("capabilities {mask}"),
    }
}

fn end(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    for note in &report.notes {
        writeln!(out, "\n{} {note}", paint.title("Note:"))?;
    }
    let seconds = report.milliseconds / 1000;
    let tenths = report.milliseconds % 1000 / 100;
    writeln!(out, "\n{}", paint.dim(format!("All of this took {seconds}.{tenths} s.")))
}

/// How to look further, for a demo that stays up.
pub(super) fn write_hints(report: &Report, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{}", paint.title("Look further, from another terminal"))?;
    for (command, shows) in &report.look {
        writeln!(out, "   {command}\n      {}", paint.dim(shows))?;
    }
    writeln!(out, "\n{}", paint.title("Ctrl-C ends it and leaves nothing behind."))
}

/// A JSON value without its quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn named(value: &Value) -> String {
    format!("{} (uid {})", plain(&value["name"]), plain(&value["uid"]))
}
