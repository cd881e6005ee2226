//! Readers that keep a file open for a while, whatever happens to the volume meanwhile: an open file keeps its
//! generation.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::{Readers, Seen};

/// Between two reads of one file: not a wait for anything, there is more to do on the machine.
const PAUSE: Duration = Duration::from_millis(2);
/// Longer than any value.
const MOST_BYTES: usize = 16 << 10;

impl Readers {
    /// `threads` readers; each opens one file after the other, reads through the fd for as long as `kept`, and is
    /// failed by a read that differs from the first.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn of_kept(threads: usize, files: &[PathBuf], kept: Duration) -> std::io::Result<Self> {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Seen>::default());
        let mut started = Vec::new();
        let (end, ends) = channel();
        for number in 0..threads {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            let files = files.to_vec();
            let end: Sender<()> = end.clone();
            started.push(std::thread::Builder::new().spawn(move || {
                let _end = end;
                for at in (number..).step_by(threads) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    keep(&files[at % files.len()], kept, &stop, &seen);
                }
            })?);
        }
        Ok(Self { stop, seen, threads: started, ends })
    }
}

fn keep(file: &PathBuf, kept: Duration, stop: &AtomicBool, seen: &Seen) {
    let begun = Instant::now();
    let opened = File::open(file).and_then(|open| Ok((whole(&open)?, open)));
    let took = begun.elapsed();
    let (first, open) = match opened {
        Ok((first, open)) => (first, open),
        Err(error) => return seen.note(file, Err(error), took),
    };
    seen.note(file, Ok(first.clone()), took);
    while begun.elapsed() < kept && !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let again = whole(&open).and_then(|again| {
            let short = |text: &str| text.chars().take(12).collect::<String>();
            let changed = || format!("open: {}... became {}...", short(&first), short(&again));
            if again == first { Ok(again) } else { Err(std::io::Error::other(changed())) }
        });
        seen.note(file, again, asked.elapsed());
        std::thread::park_timeout(PAUSE);
    }
}

fn whole(open: &File) -> std::io::Result<String> {
    let mut bytes = vec![0; MOST_BYTES];
    let size = open.read_at(&mut bytes, 0)?;
    bytes.truncate(size);
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_file_that_changes_is_a_failure_and_one_that_is_replaced_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "one").unwrap();
        let files = [file.clone()];
        let readers = Readers::of_kept(1, &files, Duration::from_secs(60)).unwrap();
        readers.read_on(5).await.unwrap();
        std::fs::write(folder.path().join("b"), "two").unwrap();
        std::fs::rename(folder.path().join("b"), &file).unwrap();
        readers.read_on(5).await.unwrap();
        assert_eq!(readers.stop().failures(), Vec::<String>::new());
        let readers = Readers::of_kept(1, &files, Duration::from_secs(60)).unwrap();
        readers.read_on(5).await.unwrap();
        // Not cut short first: that would be another change.
        let own = File::options().write(true).open(&file).unwrap();
        own.write_all_at(b"own", 0).unwrap();
        readers.read_on(5).await.unwrap();
        let seen = readers.stop();
        assert!(seen.failures()[0].contains("open: two... became own..."), "{:?}", seen.failures());
    }
}
