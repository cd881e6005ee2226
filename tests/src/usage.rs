//! What processes use, as the kernel counts it: CPU time, memory, threads, descriptors.
//!
//! Invariant: a process is measured with everything below it, and with what it reaped: a supervisor's worker and
//! a driver's helper can't be overlooked. Called by the benches.

use std::io;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::procfs;

/// The kernel's unit of CPU time of reaped children towards user space (`USER_HZ`), the same on every architecture that
/// we build for.
const TICK: Duration = Duration::from_millis(10);

/// What some processes and their descendants use at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory, pages that are shared counted in each process.
    pub rss_kib: u64,
    /// Shared pages counted by their share; `None` where the kernel doesn't tell.
    pub pss_kib: Option<u64>,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub fds: u64,
    /// User and system time since they began, to the nanosecond; with that of the children that they reaped, in
    /// hundredths of a second.
    pub cpu: Duration,
}

impl Usage {
    /// Of these processes and all below them.
    ///
    /// # Errors
    /// One of `roots` has ended, or may not be looked into. A descendant may end meanwhile.
    pub fn of(roots: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self { pss_kib: Some(0), ..Self::default() };
        for root in roots {
            sum.add(&Self::of_one(*root).with_context(|| format!("process {root}"))?);
            let below = procfs::tree(*root).into_iter().skip(1);
            below.filter_map(|pid| Self::of_one(pid).ok()).for_each(|it| sum.add(&it));
        }
        Ok(sum)
    }

    fn of_one(pid: u32) -> anyhow::Result<Self> {
        let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = read("status").context("it has ended")?;
        // Exact, where `status` may be off by some pages a CPU.
        let rollup = read("smaps_rollup").unwrap_or_default();
        let rss_kib = field(&rollup, "Rss:").or_else(|| field(&status, "VmRSS:"));
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .context("its descriptors can't be listed: root is needed")?
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            rss_kib: rss_kib.context("no resident memory in /proc")?,
            pss_kib: field(&rollup, "Pss:"),
            threads: field(&status, "Threads:").context("no threads in /proc")?,
            fds: open.len() as u64,
            cpu: own_cpu(pid)?
                + reaped_cpu(&read("stat")?).context("no CPU time of children in /proc")?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.rss_kib += other.rss_kib;
        self.pss_kib = self.pss_kib.zip(other.pss_kib).map(|(one, other)| one + other);
        self.threads += other.threads;
        self.fds += other.fds;
        self.cpu += other.cpu;
    }
}

/// The number of a line such as `Pss:   1234 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The process's own CPU time, ended threads included; `/proc/PID/stat` has it in hundredths of a second only.
fn own_cpu(pid: u32) -> anyhow::Result<Duration> {
    // The kernel's MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED, as in clock_getcpuclockid(3).
    clock((!pid.cast_signed() << 3) | 2)
}

#[expect(unsafe_code, reason = "clock_gettime of a process's or a thread's clock")]
fn clock(clock: libc::clockid_t) -> anyhow::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live local that the call may write to; any number is allowed as a clock.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "no CPU time: {}", io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// CPU time of this thread alone.
///
/// # Errors
/// The kernel doesn't say.
pub fn cpu_of_this_thread() -> anyhow::Result<Duration> {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// cutime and cstime of `/proc/PID/stat`; proc(5) numbers them 16 and 17, the state is 3.
fn reaped_cpu(stat: &str) -> Option<Duration> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(13).take(2);
    let ticks = fields.map(|it| it.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
    (ticks.len() == 2).then(|| TICK * ticks.iter().sum::<u32>())
}

/// The processors that this process may use, in order.
///
/// # Errors
/// The kernel doesn't say.
pub fn processors() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect())
}

/// Confines this thread, and all that it starts, to a processor: `taskset -c`.
///
/// # Errors
/// The kernel refuses.
pub fn pin_this_thread(processor: usize) -> io::Result<()> {
    Ok(sched_setaffinity(None, &only(&[processor]))?)
}

/// Confines every thread of these processes, and of all below them, to some processors: `taskset -ap`.
///
/// # Errors
/// One of `roots` has ended.
pub fn pin(roots: &[u32], processors: &[usize]) -> anyhow::Result<()> {
    for root in roots {
        ensure!(procfs::state(*root).is_some(), "process {root} has ended");
        for pid in procfs::tree(*root) {
            for thread in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
                let id = thread.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
                let id = id.context("a thread without a number")?;
                match sched_setaffinity(Some(id), &only(processors)) {
                    // One that ended meanwhile needs no processor.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error).context("a process can't be pinned"),
                }
            }
        }
    }
    Ok(())
}

/// Confines the threads of this name of a process to a processor; says how many there were.
///
/// # Errors
/// The process has ended.
pub fn pin_named(pid: u32, name: &str, processor: usize) -> anyhow::Result<usize> {
    let mut pinned = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let comm = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let id = thread.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if comm.trim_end() == name {
            sched_setaffinity(id, &only(&[processor]))?;
            pinned += 1;
        }
    }
    Ok(pinned)
}

fn only(processors: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_of_children_is_both_numbers_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 5 6 7 8 100 20 3 4 20 0 9 0";
        assert_eq!(reaped_cpu(stat), Some(Duration::from_millis(70)));
        assert_eq!(reaped_cpu("7 (x) S 1 7"), None);
    }

    #[test]
    fn a_process_that_computes_uses_time_and_one_that_waits_does_not() -> anyhow::Result<()> {
        let mut waiting = std::process::Command::new("cat");
        let mut waiting = waiting.stdin(std::process::Stdio::piped()).spawn()?;
        let own = std::process::id();
        let (before, of_thread) = (own_cpu(own)?, cpu_of_this_thread()?);
        let began = std::time::Instant::now();
        while began.elapsed() < TICK * 3 {
            std::hint::black_box(began);
        }
        // Read in the other order: the thread's time lies within the process's.
        let by_thread = cpu_of_this_thread()? - of_thread;
        let used = own_cpu(own)? - before;
        // Others may have the processor meanwhile, but not all of the time; threads of other tests count too.
        assert!(used > TICK / 10, "{used:?}");
        assert!(by_thread > TICK / 10 && by_thread <= used, "{by_thread:?} of {used:?}");
        assert!(own_cpu(waiting.id())? < TICK * 3);
        waiting.kill()?;
        waiting.wait()?;
        assert!(own_cpu(waiting.id()).is_err());
        Ok(())
    }

    #[tokio::test]
    async fn a_child_counts_and_so_does_what_it_used_once_it_is_reaped() -> anyhow::Result<()> {
        let spin = "cat; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut shell = std::process::Command::new("sh");
        let shell = shell.args(["-c", &format!("({spin}); exec 3<\"$0\"; read x <&3")]);
        let fifo = tempfile::tempdir()?;
        let path = fifo.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )?;
        let mut shell = shell.arg(&path).stdin(std::process::Stdio::piped()).spawn()?;
        let pid = shell.id();
        let threads = || Usage::of(&[pid]).map(|it| it.threads).unwrap_or_default();
        crate::wait::until("the shell's child with its own", || threads() == 3).await?;
        drop(shell.stdin.take());
        crate::wait::until("its end", || threads() == 1).await?;
        assert!(Usage::of(&[pid])?.cpu >= TICK * 2);
        shell.kill()?;
        shell.wait()?;
        Ok(())
    }

    #[test]
    fn a_process_that_has_ended_is_no_zero() {
        assert!(Usage::of(&[u32::MAX]).is_err());
        assert!(pin(&[u32::MAX], &[0]).is_err());
    }
}
