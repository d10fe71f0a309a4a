//! What keys and users used, in their status.
//!
//! Each pool's `usageReportInterval` says how often. Only what changed is written, at the [`Pace`] of all such writes. The
//! patch holds `status.usage` and nothing else, under a field manager of its own, so
//! that it meets no write of the controllers; these ignore changes of status.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use spillway_core::repository::RepositoryError;
use spillway_core::repository::usage_totals::{self, UsageTotals};
use spillway_crds::{AccessKey, ProxyPool, ProxyUser, UsageStatus, UsageWindow};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::database::{Database, Session};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::report::chain;
use crate::settings::WatchScope;

/// Field manager of the patches.
const FIELD_MANAGER: &str = "spillway-usage";
/// The interval of users without a pool, and of pools whose interval cannot be read.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
/// `lastUsedAt` is rounded down to this, for a status that changed with every request would be written all the time.
const LAST_USED_STEP_SECONDS: i64 = 300;
/// How many objects one list request asks for.
const PAGE: u32 = 500;

/// A pool by namespace and name; `None` stands for users without one.
type Pool = Option<(String, String)>;

/// Why usage was not reported this time.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("the usage could not be read")]
    Database(#[from] RepositoryError),
    #[error("the {0} resources could not be listed")]
    List(&'static str, #[source] kube::Error),
}

/// Reports until it is dropped. For the leader alone.
pub async fn run(
    client: Client,
    database: Database,
    scope: WatchScope,
    metrics: Metrics,
    pace: Pace,
) {
    let mut reporter = Reporter::new(client, scope, metrics, pace);
    loop {
        let session = database.ready().await;
        if let Err(error) = reporter.report_due(&session).await {
            if let ReportError::Database(error) = &error {
                database.report(error);
            }
            warn!(error = chain(&error), "usage not reported");
        }
        sleep_until(reporter.next_due()).await;
    }
}

struct Reporter {
    client: Client,
    scope: WatchScope,
    metrics: Metrics,
    /// What the status of a resource says, by uid; read once at the start, then kept up to date.
    written: Option<HashMap<String, UsageStatus>>,
    /// When each pool is to be reported next.
    due: BTreeMap<Pool, Instant>,
    pace: Pace,
}

impl Reporter {
    fn new(client: Client, scope: WatchScope, metrics: Metrics, pace: Pace) -> Self {
        Self {
            client,
            scope,
            metrics,
            written: None,
            due: BTreeMap::new(),
            pace,
        }
    }

    /// When the next pool is due: in a second at the earliest, so that a failure does not spin.
    fn next_due(&self) -> Instant {
        let soonest = Instant::now() + Duration::from_secs(1);
        self.due
            .values()
            .min()
            .map_or(soonest, |due| soonest.max(*due))
    }

    /// Reports the usage of every pool that is due.
    async fn report_due(&mut self, session: &Session) -> Result<(), ReportError> {
        let intervals = self.intervals().await?;
        let now = Instant::now();
        let due: HashSet<Pool> = self.take_due(&intervals, now);
        if due.is_empty() {
            return Ok(());
        }
        let always = DateTime::UNIX_EPOCH;
        let keys = usage_totals::by_access_key(&session.pool, session.cluster_id(), always).await?;
        let users = usage_totals::by_user(&session.pool, session.cluster_id(), always).await?;
        self.learn_written().await?;
        let living: HashSet<&str> = keys
            .iter()
            .chain(&users)
            .map(|total| total.uid.as_str())
            .collect();
        self.written
            .get_or_insert_default()
            .retain(|uid, _| living.contains(uid.as_str()));
        self.write_changed::<AccessKey>(&keys, &due).await;
        self.write_changed::<ProxyUser>(&users, &due).await;
        Ok(())
    }

    /// Every pool's interval.
    async fn intervals(&self) -> Result<BTreeMap<Pool, Duration>, ReportError> {
        let pools: Api<ProxyPool> = Api::all(self.client.clone());
        let pools = pools
            .list(&ListParams::default())
            .await
            .map_err(|e| ReportError::List("ProxyPool", e))?;
        let mut intervals = BTreeMap::from([(None, DEFAULT_INTERVAL)]);
        for pool in pools {
            let interval = pool
                .spec
                .usage_report_interval
                .parse()
                .unwrap_or(DEFAULT_INTERVAL);
            intervals.insert(
                Some((pool.namespace().unwrap_or_default(), pool.name_any())),
                interval,
            );
        }
        Ok(intervals)
    }

    /// The pools that are due at `now`; each of them is next due an interval later.
    fn take_due(&mut self, intervals: &BTreeMap<Pool, Duration>, now: Instant) -> HashSet<Pool> {
        self.due.retain(|pool, _| intervals.contains_key(pool));
        let mut taken = HashSet::new();
        for (pool, interval) in intervals {
            let due = self.due.entry(pool.clone()).or_insert(now);
            // An interval that was shortened counts at once.
            if *due <= now || *due > now + *interval {
                *due = now + *interval;
                taken.insert(pool.clone());
            }
        }
        taken
    }

    /// Reads what status says now, once, so that a new leader writes nothing that is there already.
    async fn learn_written(&mut self) -> Result<(), ReportError> {
        if self.written.is_none() {
            let mut written = HashMap::new();
            learn::<AccessKey>(&self.client, &mut written, |key| {
                key.status.as_ref()?.usage.clone()
            })
            .await?;
            learn::<ProxyUser>(&self.client, &mut written, |user| {
                user.status.as_ref()?.usage.clone()
            })
            .await?;
            self.written = Some(written);
        }
        Ok(())
    }

    async fn write_changed<K>(&mut self, totals: &[UsageTotals], due: &HashSet<Pool>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        for total in totals {
            if !due.contains(&total.pool) || !self.scope.includes(&total.namespace) {
                continue;
            }
            let usage = status_of(total);
            let written = self.written.get_or_insert_default();
            if written.get(&total.uid) == Some(&usage) {
                continue;
            }
            self.pace.turn().await;
            match write::<K>(&self.client, total, &usage).await {
                Ok(true) => {
                    self.metrics.usage_written();
                    self.written
                        .get_or_insert_default()
                        .insert(total.uid.clone(), usage);
                }
                Ok(false) => {
                    debug!(kind = %K::kind(&()), namespace = total.namespace, name = total.name, "resource is gone");
                }
                Err(error) => warn!(
                    kind = %K::kind(&()),
                    namespace = total.namespace,
                    name = total.name,
                    error = chain(&error),
                    "usage not written"
                ),
            }
        }
    }
}

async fn learn<K>(
    client: &Client,
    written: &mut HashMap<String, UsageStatus>,
    usage: impl Fn(&K) -> Option<UsageStatus>,
) -> Result<(), ReportError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api
            .list(&params)
            .await
            .map_err(|e| ReportError::List("used", e))?;
        written.extend(
            page.items
                .iter()
                .filter_map(|object| Some((object.uid()?, usage(object)?))),
        );
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

/// Writes the usage of one resource. False: it is gone, or another one has its name.
async fn write<K>(
    client: &Client,
    total: &UsageTotals,
    usage: &UsageStatus,
) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &total.namespace);
    // With the uid the API server refuses to write to a successor of the same name.
    let patch = json!({ "metadata": { "uid": total.uid }, "status": { "usage": usage } });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api
        .patch_status(&total.name, &params, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn status_of(total: &UsageTotals) -> UsageStatus {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    UsageStatus {
        window: UsageWindow::Total,
        requests: number(total.requests),
        input_tokens: number(total.input_tokens),
        output_tokens: number(total.output_tokens),
        cost_usd: total.cost.to_usd_string(),
        fallback_requests: number(total.fallback_requests),
        last_used_at: total.last_used_at.and_then(rounded),
    }
}

/// `time` rounded down to five minutes.
fn rounded(time: DateTime<Utc>) -> Option<Time> {
    let seconds = time.timestamp();
    Timestamp::from_second(seconds - seconds.rem_euclid(LAST_USED_STEP_SECONDS))
        .ok()
        .map(Time)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use spillway_core::domain::money::MicroUsd;

    use super::*;

    #[test]
    fn last_used_is_rounded_down_to_five_minutes() {
        let at = |minute, second| {
            Utc.with_ymd_and_hms(2026, 3, 1, 12, minute, second)
                .unwrap()
        };
        let text = |time| rounded(time).unwrap().0.to_string();
        assert_eq!(text(at(4, 59)), "2026-03-01T12:00:00Z");
        assert_eq!(text(at(5, 0)), "2026-03-01T12:05:00Z");
        assert_eq!(
            rounded(at(7, 1)),
            rounded(at(9, 59)),
            "requests within five minutes change nothing"
        );
    }

    #[test]
    fn a_status_carries_every_sum() {
        let status = status_of(&UsageTotals {
            namespace: "team".into(),
            name: "ci".into(),
            uid: "1".into(),
            pool: None,
            requests: 3,
            fallback_requests: 1,
            input_tokens: 100,
            output_tokens: 20,
            cost: MicroUsd(1_230_000),
            last_used_at: None,
        });
        assert_eq!((status.requests, status.fallback_requests), (3, 1));
        assert_eq!((status.input_tokens, status.output_tokens), (100, 20));
        assert!(status.cost_usd.starts_with("1.23"), "{}", status.cost_usd);
        assert_eq!(status.last_used_at, None);
    }

    #[tokio::test]
    async fn pools_are_due_by_their_own_interval() {
        let client =
            Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
        let mut reporter = Reporter::new(
            client,
            WatchScope::All,
            Metrics::new().unwrap(),
            Pace::of_status_writes(),
        );
        let fast: Pool = Some(("a".into(), "fast".into()));
        let slow: Pool = Some(("a".into(), "slow".into()));
        let mut intervals = BTreeMap::from([
            (fast.clone(), Duration::from_secs(10)),
            (slow.clone(), Duration::from_mins(1)),
        ]);
        let start = Instant::now();
        assert_eq!(
            reporter.take_due(&intervals, start).len(),
            2,
            "a new pool is due at once"
        );
        assert_eq!(
            reporter.take_due(&intervals, start + Duration::from_secs(9)),
            HashSet::new()
        );
        assert_eq!(
            reporter.take_due(&intervals, start + Duration::from_secs(10)),
            HashSet::from([fast])
        );
        intervals.insert(slow.clone(), Duration::from_secs(5));
        assert_eq!(
            reporter.take_due(&intervals, start + Duration::from_secs(11)),
            HashSet::from([slow])
        );
    }
}
