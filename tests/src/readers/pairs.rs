//! Readers of two files that are written together: both are of one generation, or the pair is torn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::{Readers, Seen};

/// A reader has little to keep.
const STACK: usize = 128 << 10;

impl Readers {
    /// `threads` readers, each of one of the volumes (`targets`): it resolves `..data` once and reads both files
    /// there, then pauses. A pair that differs is a failure.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn of_pairs(
        threads: usize,
        targets: &[PathBuf],
        names: [&'static str; 2],
        pause: Duration,
    ) -> std::io::Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Seen>::default());
        let mut started = Vec::new();
        let (end, ends) = channel();
        for number in 0..threads {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let target = targets[number % targets.len()].clone();
            let thread = std::thread::Builder::new().stack_size(STACK);
            let end: Sender<()> = end.clone();
            started.push(thread.spawn(move || {
                let _end = end;
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let read = pair(&target, names);
                    seen.note(&target, read, begun.elapsed());
                    // Not a wait for anything: a thousand of them would leave no processor to whom they read from.
                    std::thread::park_timeout(pause);
                }
            })?);
        }
        Ok(Self { stop, seen, threads: started, ends })
    }
}

fn pair(target: &std::path::Path, names: [&str; 2]) -> std::io::Result<String> {
    let generation = target.join(std::fs::read_link(target.join("..data"))?);
    let first = std::fs::read_to_string(generation.join(names[0]))?;
    let second = std::fs::read_to_string(generation.join(names[1]))?;
    if first == second {
        return Ok(first);
    }
    let short = |text: &str| text.chars().take(12).collect::<String>();
    let torn = format!("torn: {}... beside {}...", short(&first), short(&second));
    Err(std::io::Error::other(torn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_torn_pair_is_a_failure() {
        let volume = tempfile::tempdir().unwrap();
        let generation = volume.path().join("..1");
        std::fs::create_dir(&generation).unwrap();
        std::os::unix::fs::symlink("..1", volume.path().join("..data")).unwrap();
        let write = |name: &str, value| std::fs::write(generation.join(name), value).unwrap();
        write("a", "one");
        write("b", "one");
        let targets = [volume.path().to_owned()];
        let readers = Readers::of_pairs(2, &targets, ["a", "b"], Duration::ZERO).unwrap();
        readers.read_on(10).await.unwrap();
        assert_eq!(readers.seen().failures(), Vec::<String>::new());
        write("b", "two");
        readers.read_on(10).await.unwrap();
        let seen = readers.stop();
        assert!(seen.failures()[0].contains("torn: one... beside "), "{:?}", seen.failures());
    }
}
