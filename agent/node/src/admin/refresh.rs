//! `sotto-node refresh <namespace>/<pod>`: the agent asks the stores again for that pod's volumes, now.
//!
//! The answer is `asked <number>`, then one line a volume: its id, its class and what came of it; or `no: `
//! with a reason. A name that is none is refused before anybody is asked; a few questions are worked on at
//! once, the others are refused.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sotto_core::identity::{Namespace, PodName};
use sotto_volume::volumes::{REFRESH_DEADLINE, RefreshedVolume, Volumes};
use tokio::sync::Semaphore;

use super::asked;

/// Before the pod's name.
pub(super) const QUESTION: &str = "refresh ";
/// Questions that are worked on at once.
const MOST_QUESTIONS: usize = 4;
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// The agent's own deadline, and the way.
const DEADLINE: Duration = REFRESH_DEADLINE.saturating_add(Duration::from_secs(5));

type Answering = Pin<Box<dyn Future<Output = Vec<RefreshedVolume>> + Send>>;
type Refresh = dyn Fn(Namespace, PodName) -> Answering + Send + Sync;

/// Who carries the questions out.
#[derive(Clone)]
pub struct Refresher {
    refresh: Arc<Refresh>,
    questions: Arc<Semaphore>,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// One line a volume.
    pub lines: Vec<String>,
    /// Whether all of them show what their stores have.
    pub are_good: bool,
}

impl Refresher {
    /// Asks by `refresh`.
    pub fn new(refresh: impl Fn(Namespace, PodName) -> Answering + Send + Sync + 'static) -> Self {
        Self { refresh: Arc::new(refresh), questions: Arc::new(Semaphore::new(MOST_QUESTIONS)) }
    }

    /// Asks these volumes.
    #[must_use]
    pub fn of(volumes: &Volumes) -> Self {
        let volumes = volumes.clone();
        Self::new(move |namespace, pod| {
            let volumes = volumes.clone();
            Box::pin(async move { volumes.refresh(&namespace, &pod).await })
        })
    }

    pub(super) async fn answer(&self, pod: &str) -> String {
        let Some((namespace, name)) = pod.split_once('/') else {
            return "no: name a pod as <namespace>/<pod>".to_owned();
        };
        let (namespace, name) = match (Namespace::parse(namespace), PodName::parse(name)) {
            (Ok(namespace), Ok(name)) => (namespace, name),
            (Err(error), _) | (_, Err(error)) => return format!("no: {error}"),
        };
        let Ok(_question) = self.questions.try_acquire() else {
            return "no: others are being refreshed, try again".to_owned();
        };
        let answers = (self.refresh)(namespace, name).await;
        if answers.is_empty() {
            return "no: no volume of that pod is here; is it on this node?".to_owned();
        }
        let number = format!("asked {}", answers.len());
        let line =
            |it: &RefreshedVolume| format!("{} {} {}", it.volume, it.class, it.result.name());
        let lines: Vec<_> = [number].into_iter().chain(answers.iter().map(line)).collect();
        let is_good = answers.iter().all(|answer| answer.result.is_good());
        let end = if is_good { "done" } else { "not all" };
        format!("{}\n{end}", lines.join("\n"))
    }
}

/// Asks a running agent; blocks.
///
/// # Errors
/// No agent answers, or it says why it doesn't refresh.
pub fn refresh(name: &str, pod: &str) -> Result<Answers, String> {
    if pod.contains(char::is_control) {
        return Err("that is no pod's name".to_owned());
    }
    let answer = asked(name, &format!("{QUESTION}{pod}"), DEADLINE).and_then(|stream| {
        let mut answer = String::new();
        stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.map_err(|error| format!("no agent answers at @{name}: {error}"))?;
    if let Some(reason) = answer.strip_prefix("no: ") {
        return Err(reason.trim_end().to_owned());
    }
    let mut lines: Vec<String> = answer.lines().map(str::to_owned).collect();
    match lines.pop().as_deref() {
        Some(end @ ("done" | "not all")) => Ok(Answers { lines, are_good: end == "done" }),
        Some(_) | None => Err("the agent ended before it had answered".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Admin;
    use super::*;
    use crate::readiness::Readiness;
    use sotto_core::identity::{ClassName, VolumeId};
    use sotto_runtime::drain::Drain;
    use sotto_volume::volumes::Refreshed;

    fn volume(name: &str, result: Refreshed) -> RefreshedVolume {
        let (volume, class) = (VolumeId::parse(name).unwrap(), ClassName::parse("db").unwrap());
        RefreshedVolume { volume, class, result }
    }

    fn answering(name: &str, refresher: Refresher) -> Drain {
        let drain = Drain::new();
        let admin = Admin::bind(name).unwrap();
        drain.spawn(admin.run(Readiness::new(drain.clone()), refresher, drain.clone()));
        drain
    }

    async fn asked(name: &'static str, pod: &'static str) -> Result<Answers, String> {
        tokio::task::spawn_blocking(move || refresh(name, pod)).await.unwrap()
    }

    #[tokio::test]
    async fn each_volume_of_the_pod_has_its_line() {
        let name = "sotto-node-test-refresh";
        let refresher = Refresher::new(|namespace, pod| {
            Box::pin(async move {
                match (namespace.as_str(), pod.as_str()) {
                    ("payments", "web-0") => vec![
                        volume("csi-1", Refreshed::Changed),
                        volume("csi-2", Refreshed::Unchanged),
                    ],
                    ("payments", "web-1") => vec![volume("csi-3", Refreshed::Outage)],
                    _ => Vec::new(),
                }
            })
        });
        let _drain = answering(name, refresher);
        let answers = asked(name, "payments/web-0").await.unwrap();
        assert_eq!(answers.lines, ["asked 2", "csi-1 db changed", "csi-2 db unchanged"]);
        assert!(answers.are_good);
        let answers = asked(name, "payments/web-1").await.unwrap();
        assert_eq!(answers.lines, ["asked 1", "csi-3 db outage"]);
        assert!(!answers.are_good);
        assert!(asked(name, "payments/web-2").await.unwrap_err().contains("no volume"));
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_refused_before_anybody_is_asked() {
        let name = "sotto-node-test-refresh-names";
        let _drain = answering(name, Refresher::new(|_, _| panic!("it was asked")));
        for pod in ["", "payments", "/", "payments/", "/web-0", "a/b/c", "Pay/web-0", "p/../x"] {
            assert!(asked(name, pod).await.is_err(), "{pod}");
        }
        assert!(asked(name, "payments/web-0\nready?").await.is_err());
    }

    #[tokio::test]
    async fn questions_that_take_long_keep_no_probe_waiting_and_are_bounded() {
        let name = "sotto-node-test-refresh-bound";
        let _drain = answering(name, Refresher::new(|_, _| Box::pin(std::future::pending())));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..=MOST_QUESTIONS {
            asking.spawn(asked(name, "payments/web-0"));
        }
        let first = asking.join_next().await.unwrap().unwrap();
        assert!(first.unwrap_err().contains("try again"));
        let live = tokio::task::spawn_blocking(move || super::super::probe(name, true));
        assert_eq!(live.await.unwrap(), Ok(()));
    }
}
