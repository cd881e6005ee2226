//! `make faults`: what can go wrong, what is promised, and whether it was held, each row played with real
//! processes and real mounts. `make test` plays the quick rows.
//!
//! Arguments: `--all`, `--row=NUMBER` (any number of them), `--list`; anything else is part of a fault or promise. The rows are in
//! `faults/rows.rs`, their scenarios by topic beside it.

#[path = "faults/agents.rs"]
mod agents;
#[path = "faults/chaos.rs"]
mod chaos;
#[path = "faults/driver.rs"]
mod driver;
#[path = "faults/hostile.rs"]
mod hostile;
#[path = "faults/identity.rs"]
mod identity;
#[path = "faults/kubelet.rs"]
mod kubelet;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/names.rs"]
mod names;
#[path = "faults/network.rs"]
mod network;
#[path = "faults/rotation.rs"]
mod rotation;
#[path = "faults/rows.rs"]
mod rows;
#[path = "faults/sidecar.rs"]
mod sidecar;
#[path = "faults/store.rs"]
mod store;

use std::process::ExitCode;
use std::time::Instant;

use sotto_tests::table::{Player, Row, Verdict, judge};

/// A promise that nobody could keep: whoever can't see it broken has seen nothing.
const DETECTOR: Row = Row {
    number: "0",
    fault: "agent and driver gone for good under readers",
    promise: "(none: this row must be broken)",
    player: rows::here(|| Box::pin(agents::are_gone_for_good())),
    is_quick: true,
};

fn main() -> ExitCode {
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |row: &&Row| is_asked_for(row, &arguments);
    let rows: Vec<&Row> = rows::ROWS.iter().filter(asked).collect();
    if arguments.iter().any(|it| it == "--list") {
        rows.iter().for_each(|row| say(&row.to_string()));
        return ExitCode::SUCCESS;
    }
    if rows.is_empty() {
        // A filter that was meant for other tests.
        say("test result: ok. 0 passed; 0 failed; 0 ignored");
        return ExitCode::SUCCESS;
    }
    play(&rows)
}

fn is_asked_for(row: &Row, arguments: &[String]) -> bool {
    let plays_here = matches!(row.player, Player::Here(..));
    let numbers: Vec<&str> = arguments.iter().filter_map(|it| it.strip_prefix("--row=")).collect();
    if !numbers.is_empty() {
        return row.number.split(", ").any(|number| numbers.contains(&number));
    }
    if arguments.iter().any(|it| it == "--all") {
        // The short chaos is part of the long one.
        return !(row.is_quick && row.number == rows::SHORT_CHAOS);
    }
    let words: Vec<_> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let named = words.iter().all(|it| row.fault.contains(*it) || row.promise.contains(*it));
    row.is_quick && plays_here && named
}

fn play(rows: &[&Row]) -> ExitCode {
    let begun = Instant::now();
    let (mut held, mut broken, mut absent) = (0, Vec::new(), 0);
    let detected = matches!(judge(&DETECTOR.player), Verdict::Broken(_));
    if !detected {
        broken.push(format!("{DETECTOR} was not seen broken"));
    }
    say("| # | fault | promise | | worst read stall | |\n|---|---|---|---|---|---|");
    for row in rows {
        let verdict = judge(&row.player);
        say(&format!("{row}{verdict}"));
        match verdict {
            Verdict::Held(_) => held += 1,
            Verdict::NotHere(_) => absent += 1,
            Verdict::Broken(reason) => {
                say(&format!("<!-- {reason} -->"));
                broken.push(format!("row {}: {reason}", row.number));
            }
        }
    }
    broken.iter().for_each(|reason| say(&format!("\nbroken: {reason}")));
    say(&format!(
        "\n{held} held, {} broken, {absent} not played here, in {:.0} s; a row broken on purpose was {}",
        broken.len(),
        begun.elapsed().as_secs_f64(),
        if detected { "seen" } else { "NOT seen" }
    ));
    let result = if broken.is_empty() { "ok" } else { "FAILED" };
    say(&format!("test result: {result}. {held} passed; {} failed; 0 ignored", broken.len()));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the table is this program's result")]
fn say(text: &str) {
    println!("{text}");
}
