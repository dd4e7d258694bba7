//! What is known of each lane to a registry. Its labels are names of the configuration, so there are no more than it has.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Metrics;

/// A lane by its labels.
#[derive(Clone, Copy, Debug)]
pub struct Lane<'a> {
    /// The registry.
    pub registry: &'a str,
    /// The account, or `anonymous`.
    pub account: &'a str,
    /// The way out; empty for an account, which goes by any.
    pub egress: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabels {
    registry: String,
    account: String,
    egress: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    registry: String,
    account: String,
    egress: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    registry: String,
    account: String,
    reason: &'static str,
}

#[derive(Default)]
pub(super) struct LaneMetrics {
    limit: Family<LaneLabels, Gauge>,
    remaining: Family<LaneLabels, Gauge>,
    state: Family<StateLabels, Gauge>,
    failures: Family<FailureLabels, Counter>,
}

impl LaneMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let limit = "Manifest GETs a lane has in a window";
        registry.register("stopover_quota_limit", limit, self.limit.clone());
        registry.register(
            "stopover_quota_remaining",
            "Manifest GETs left in the window",
            self.remaining.clone(),
        );
        registry.register("stopover_lane_state", "1 for the state that a lane is in", self.state.clone());
        let failures = "Accounts that were not let in, each time that it was tried";
        registry.register("stopover_lane_failures", failures, self.failures.clone());
    }
}

impl Metrics {
    /// Notes what a registry says is left of a lane's quota, in manifest GETs.
    pub fn quota(&self, lane: Lane<'_>, limit: u64, remaining: u64) {
        let labels = LaneLabels {
            registry: self.label_of(lane.registry),
            account: lane.account.to_owned(),
            egress: lane.egress.to_owned(),
        };
        self.lanes.limit.get_or_create(&labels).set(limit.cast_signed());
        self.lanes.remaining.get_or_create(&labels).set(remaining.cast_signed());
    }

    /// Notes which of `states` a lane is in.
    pub fn lane_state(&self, lane: Lane<'_>, states: &[&'static str], current: &str) {
        for state in states {
            let labels = StateLabels {
                registry: self.label_of(lane.registry),
                account: lane.account.to_owned(),
                egress: lane.egress.to_owned(),
                state,
            };
            self.lanes.state.get_or_create(&labels).set(i64::from(*state == current));
        }
    }

    /// Counts a failure of an account. `reason` is a word such as `login`.
    pub fn lane_failed(&self, registry: &str, account: &str, reason: &'static str) {
        let labels = FailureLabels { registry: self.label_of(registry), account: account.to_owned(), reason };
        self.lanes.failures.get_or_create(&labels).inc();
    }
}
