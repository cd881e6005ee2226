//! `make soak MINUTES=30`: publishes, rotations, kills and unpublishes at random against a model; nothing grows: fds,
//! threads, memory, mounts, journal, at a real OpenBao logins and leases, in a real PostgreSQL the roles of these.
//!
//! The model is what each volume has to show ([`steps`] for the pairs of files that the store's KV has, [`leased`] for
//! database credentials); every step is followed by a look at one volume, and every kill by a look at all. After the
//! last third, in which nothing is killed, the same processes are looked at as before it: what a process gathers over
//! its life would otherwise end with it. `SEED=` repeats a run.

mod leased;
mod look;
mod steps;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sotto_tests::chance::Chance;

use crate::steps::Soak;

/// Part of the time after which what is there counts as normal.
const WARM_UP: f64 = 0.2;
/// Part of the time after which nothing is killed any more.
const QUIET: f64 = 0.6;

fn main() -> ExitCode {
    // Nobody installs another one in this process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let minutes = std::env::var("MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let seed = Chance::seed();
    say(&format!("soak: {minutes} min, SEED={seed}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let soaked = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(soak(Duration::from_secs_f64(minutes * 60.0), Chance::of(seed)))
    });
    match soaked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("soak: {error:#} (SEED={seed})"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the numbers are this program's result")]
fn say(text: &str) {
    println!("{text}");
}

async fn soak(duration: Duration, chance: Chance) -> anyhow::Result<()> {
    let mut soak = Soak::start(chance).await?;
    let begun = Instant::now();
    soak.go_on_until(begun + duration.mul_f64(WARM_UP)).await?;
    let before = soak.look().await?;
    say(&format!("after the warm-up    {before}"));
    soak.go_on_until(begun + duration.mul_f64(QUIET)).await?;
    let killed = soak.look().await?;
    say(&format!("after the last kill  {killed}"));
    killed.compared_with(&before)?;
    soak.kills = false;
    // What a new process has once for all.
    soak.go_on_until(Instant::now() + duration.mul_f64(WARM_UP / 4.0)).await?;
    let settled = soak.look().await?;
    say(&format!("the same, settled    {settled}"));
    soak.go_on_until(begun + duration).await?;
    let after = soak.look().await?;
    say(&format!("at the end           {after}"));
    say(&format!("steps                {}", soak.steps));
    after.are_the_processes_of(&settled)?;
    after.compared_with(&settled)?;
    soak.end().await
}
