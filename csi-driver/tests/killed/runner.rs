//! Runs the tests as cargo's own harness would, so far as its arguments are used here: names, `--exact`,
//! `--skip` and `--list`.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// At one time: they wait for processes more than they work.
const PARALLEL: usize = 3;

/// A test's name, and what begins it.
pub(crate) type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((
            concat!(stringify!($module), "::", stringify!($name)),
            || Box::pin(crate::$module::$name()),
        )),*]
    };
}
pub(crate) use tests;

pub(crate) fn run(arguments: &[String], tests: &[Test]) -> ExitCode {
    let chosen: Vec<_> = tests.iter().filter(|(name, _)| is_chosen(arguments, name)).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let (begun, next, failed) = (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(test) = chosen.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !passes(test) {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "\ntest result: {}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; finished \
         in {:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        chosen.len() - failed,
        tests.len() - chosen.len(),
        begun.elapsed().as_secs_f64(),
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn passes((name, begin): &Test) -> bool {
    let (name, begin) = (*name, *begin);
    let run = move || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(begin());
    };
    let passed = std::thread::Builder::new().name(name.to_owned()).spawn(run).unwrap().join();
    println!("test {name} ... {}", if passed.is_ok() { "ok" } else { "FAILED" });
    passed.is_ok()
}

fn is_chosen(arguments: &[String], name: &str) -> bool {
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let is_meant = |text: &String| if exact { name == text } else { name.contains(text.as_str()) };
    let (mut names, mut skips) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--skip" => skips.extend(arguments.next()),
            "--test-threads" | "--format" | "--color" | "-Z" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            _ => names.push(argument),
        }
    }
    (names.is_empty() || names.into_iter().any(is_meant)) && !skips.into_iter().any(is_meant)
}
