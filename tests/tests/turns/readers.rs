//! A thousand readers while the volume turns and turns: nobody fails, sees half a value, or two generations
//! through one resolved directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{CWD, Mode, OFlags, openat};
use sotto_tests::scene::Scene;
use tokio::time::MissedTickBehavior;

use super::{published, turn};

const READERS: usize = 1_000;
const ROTATIONS: u32 = 120;
const EVERY: Duration = Duration::from_millis(250);
/// Between two rounds of a reader.
const PAUSE: Duration = Duration::from_millis(150);
/// One part of a value, over and over: half of one value and half of another are told from a whole.
const PARTS: usize = 800;

fn value(number: u32) -> String {
    format!("{number:06};").repeat(PARTS)
}

/// The number of a whole value.
fn number_of(text: &str) -> io::Result<u32> {
    let number = text.get(..6).and_then(|number| number.parse().ok());
    let whole = number.filter(|number| text == value(*number));
    whole.ok_or_else(|| io::Error::other(format!("torn: {} bytes", text.len())))
}

fn read_at(directory: &OwnedFd, name: &str) -> io::Result<u32> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text)?;
    number_of(&text)
}

/// One round of a reader: both files of one resolved `..data`, and one by its name.
fn round(target: &Path, last: u32) -> io::Result<u32> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolved = openat(CWD, target.join("..data"), flags, Mode::empty())?;
    let set = (read_at(&resolved, "p")?, read_at(&resolved, "tls/key")?);
    if set.0 != set.1 {
        return Err(io::Error::other(format!("mixed: {set:?}")));
    }
    let by_name = number_of(&std::fs::read_to_string(target.join("p"))?)?;
    if set.0 < last || by_name < set.0 {
        return Err(io::Error::other(format!("back in time: {last}, {set:?}, {by_name}")));
    }
    Ok(by_name)
}

/// Threads that read until this is dropped.
#[derive(Default)]
struct Readers {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(target: &Path) -> io::Result<Self> {
        let mut readers = Self::default();
        for number in 0..READERS {
            let (stop, rounds, failures) =
                (readers.stop.clone(), readers.rounds.clone(), readers.failures.clone());
            let target: PathBuf = target.to_owned();
            let read = move || {
                std::thread::park_timeout(PAUSE.mul_f64(number as f64 / READERS as f64));
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    match round(&target, last) {
                        Ok(number) => last = number,
                        Err(error) => {
                            let mut all = failures.lock().unwrap_or_else(PoisonError::into_inner);
                            all.push(error.to_string());
                        }
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    std::thread::park_timeout(PAUSE);
                }
            };
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            readers.threads.push(thread.spawn(read)?);
        }
        Ok(readers)
    }

    fn end(&mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("a reader doesn't panic"));
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_see_whole_values_and_whole_sets_through_120_rotations()
-> anyhow::Result<()> {
    let scene = Scene::embedded().await?;
    let (pod, target) = published(&scene, &value(1)).await?;
    let mut readers = Readers::start(&target)?;
    let began = Instant::now();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 2..=ROTATIONS + 1 {
        every.tick().await;
        turn(&scene, &pod, &value(number)).await.with_context(|| format!("rotation {number}"))?;
    }
    let took = began.elapsed();
    let (rounds, failures) = (readers.rounds.load(Ordering::Relaxed), readers.end());
    assert_eq!(failures, Vec::<String>::new(), "of {rounds} rounds in {took:?}");
    assert!(rounds > READERS * ROTATIONS as usize / 2, "only {rounds} rounds in {took:?}");
    // Half a minute, unless the machine has other work to do.
    assert!(took < 4 * EVERY * ROTATIONS, "{ROTATIONS} rotations took {took:?}");
    scene.stop(&pod).await
}

#[test]
fn what_is_torn_is_detected() {
    assert_eq!(number_of(&value(7)).unwrap(), 7);
    let torn = [&value(7)[..3_500], &value(8)[3_500..]].concat();
    assert!(number_of(&torn).is_err());
    assert!(number_of(&value(7)[..700]).is_err());
}
