//! Sotto beside what people use today, in one run, on the same work: `make bench`, `make bench QUICK=1`,
//! `make bench ROW="files publish"`.
//!
//! Real processes and a real OpenBao server over mutual TLS. Prints the table that README.md shows, and writes every
//! sample to `target/bench/results.json`. Exits 1 if a goal is not met or a row failed. The judgement is tried on
//! made-up figures first. Method and limits: `tests/benches/README.md`.

mod empty_handler;
mod floor_client;
mod machine;
mod peer;
mod plan;
mod reading;
mod report;
mod results;
mod rows;
mod stats;
mod tmpfs;
mod volumes;

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::ensure;
use sotto_dev::node::Binaries;
use sotto_tests::usage;

use machine::Processors;
use plan::Plan;
use report::Verdict;
use results::Run;
use rows::{Bench, Now};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let result = if std::env::args().nth(1).as_deref() == Some(empty_handler::ARGUMENT) {
        arguments.next();
        empty_handler::serve(arguments).map(|()| ExitCode::SUCCESS)
    } else {
        run(Plan::of(arguments))
    };
    result.unwrap_or_else(|error| {
        say(format_args!("bench: {error:?}"));
        ExitCode::FAILURE
    })
}

fn run(plan: Plan) -> anyhow::Result<ExitCode> {
    report::sees_each_fault()?;
    let names = rows::names();
    let unknown = plan.groups.iter().find(|it| !names.contains(&it.as_str()));
    ensure!(unknown.is_none(), "no rows {unknown:?}; there are {names:?}");
    let processors = Processors::of_this_machine()?;
    let run = Run::begins();
    if let Some(own) = processors.store {
        usage::pin_this_thread(own)?;
    }
    let now = Mutex::new(Now { group: "bench", pass: 0, passes: 1 });
    let meanwhile = Mutex::new(Vec::new());
    let (binaries, began) = (Binaries::find()?.directory, Instant::now());
    let bench = Bench { plan, processors, binaries, began, now, meanwhile };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    let rows = runtime.block_on(rows::measure(&bench));
    let path = run.write(&bench.plan, &rows)?;
    say(format_args!(
        "\n{} build{}; {}; load average {} before, {} after; median (quartiles)\n",
        results::build(),
        if bench.plan.is_quick { ", quick" } else { "" },
        processors.in_words(),
        run.load_before,
        machine::load()
    ));
    say(report::table(&rows));
    say(report::notes(&rows));
    say(format_args!("every sample: {}", path.display()));
    let missed = rows.iter().filter(|row| row.verdict() == Verdict::NotMet).count();
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the result of a bench")]
fn say(text: impl Display) {
    println!("{text}");
}
