//! What is left of each registry's pull limit, as the operator sees it.
//!
//! The operator's port makes a [`Document`] of what the sources report; `stopover quota` asks for it and shows it as a
//! table. It promises that both say the same. It knows nothing of how lanes are chosen or what a registry counts.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::source::{LaneReport, LaneState};

mod ask;
mod table;

pub use ask::{Answer, AskError, Place, ask};
pub use table::table;

/// Where the operator's port has the document. Fields may be added under this path; none is renamed or removed, and
/// none changes its meaning.
pub const PATH: &str = "/api/v1/quota";

/// How the names of mirrors begin, where others have their account's; no account's name has a space.
const MIRROR: &str = "mirror ";

/// How things stand with every lane: the answer to a GET of [`PATH`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The lanes, those of the default registry first, then by registry, account and way out.
    pub lanes: Vec<Lane>,
}

/// How things stand with one lane. What nobody knows is `null`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// The registry, such as `docker.io`.
    pub registry: String,
    /// The account's name in the configuration; `anonymous` without one, and `mirror <name>` for a mirror.
    pub account: String,
    /// The way out; `null` for an account, which goes by any.
    #[serde(default)]
    pub egress: Option<String>,
    /// Manifest GETs allowed in a window.
    #[serde(default)]
    pub limit: Option<u64>,
    /// How many of them are left.
    #[serde(default)]
    pub remaining: Option<u64>,
    /// How long a window is, in seconds.
    #[serde(default)]
    pub window_seconds: Option<u64>,
    /// Manifest GETs that went this way in the last window, by Stopover's own count.
    #[serde(default)]
    pub used: u64,
    /// In how many seconds, rounded up, there is more to have or the lane is tried again; `null` where nothing lacks.
    #[serde(default)]
    pub resets_in_seconds: Option<u64>,
    /// `open`, `spent`, `resting` or `logged_out`.
    pub state: String,
    /// Why it is not open, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who the registry says that it counts for: an address, or an account's identifier. Lanes with the same one share
    /// one limit.
    #[serde(default)]
    pub counted_for: Option<String>,
}

impl Document {
    /// Returns the document of what each registry's source reports, in the order given. A registry is in it that is
    /// configured, or that was asked.
    pub fn of(reported: Vec<(Arc<str>, Vec<LaneReport>)>, is_configured: impl Fn(&str) -> bool) -> Self {
        let mut document = Self::default();
        for (registry, mut lanes) in reported {
            if !is_configured(&registry) && !lanes.iter().any(LaneReport::was_asked) {
                continue;
            }
            // Accounts first: they have no way out of their own. Mirrors last: they are somebody else's.
            let is_mirror = |lane: &LaneReport| lane.account.starts_with(MIRROR);
            lanes.sort_by(|a, b| {
                (is_mirror(a), &a.egress, &a.account).cmp(&(is_mirror(b), &b.egress, &b.account))
            });
            document.lanes.extend(lanes.into_iter().map(|lane| Lane::of(&registry, lane)));
        }
        document
    }
}

impl Lane {
    fn of(registry: &str, report: LaneReport) -> Self {
        Self {
            registry: registry.to_owned(),
            account: report.account,
            egress: report.egress,
            limit: report.limit,
            remaining: report.remaining,
            window_seconds: report.window.map(|window| window.as_secs()),
            used: report.used,
            resets_in_seconds: report.resets_in.map(rounded_up),
            state: report.state.as_str().to_owned(),
            reason: report.reason,
            counted_for: report.counted_for,
        }
    }

    fn is_mirror(&self) -> bool {
        self.account.starts_with(MIRROR)
    }

    fn is(&self, state: LaneState) -> bool {
        self.state == state.as_str()
    }
}

fn rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(account: &str, egress: Option<&str>) -> LaneReport {
        LaneReport {
            account: account.to_owned(),
            egress: egress.map(str::to_owned),
            limit: None,
            remaining: None,
            window: None,
            used: 0,
            resets_in: None,
            state: LaneState::Open,
            reason: None,
            counted_for: None,
        }
    }

    #[test]
    fn a_report_is_shown_with_its_units_and_what_is_unknown_as_null() {
        let spent = LaneReport {
            limit: Some(100),
            remaining: Some(0),
            window: Some(Duration::from_secs(21_600)),
            used: 100,
            resets_in: Some(Duration::from_millis(17_001)),
            state: LaneState::Spent,
            reason: Some("429".to_owned()),
            counted_for: Some("192.0.2.7".to_owned()),
            ..report("anonymous", Some("office"))
        };
        let document = Document::of(vec![("docker.io".into(), vec![spent, report("ann", None)])], |_| true);
        let want = serde_json::json!({ "lanes": [
            { "registry": "docker.io", "account": "ann", "egress": null, "limit": null, "remaining": null,
              "window_seconds": null, "used": 0, "resets_in_seconds": null, "state": "open", "reason": null,
              "counted_for": null },
            { "registry": "docker.io", "account": "anonymous", "egress": "office", "limit": 100, "remaining": 0,
              "window_seconds": 21_600, "used": 100, "resets_in_seconds": 18, "state": "spent", "reason": "429",
              "counted_for": "192.0.2.7" },
        ]});
        assert_eq!(serde_json::to_value(&document).unwrap(), want);
        assert_eq!(serde_json::from_value::<Document>(want).unwrap(), document);
    }

    #[test]
    fn a_registry_is_listed_where_it_is_configured_or_was_asked() {
        let used = LaneReport { used: 1, ..report("anonymous", Some("default")) };
        let unused = report("anonymous", Some("default"));
        let reported = vec![
            ("docker.io".into(), vec![unused.clone()]),
            ("ghcr.io".into(), vec![unused]),
            ("quay.io".into(), vec![used]),
        ];
        let document = Document::of(reported, |registry| registry == "docker.io");
        let registries: Vec<_> = document.lanes.iter().map(|lane| lane.registry.as_str()).collect();
        assert_eq!(registries, ["docker.io", "quay.io"]);
    }

    #[test]
    fn a_document_of_a_later_version_is_read_and_one_that_lacks_something_too() {
        let text =
            r#"{"lanes":[{"registry":"docker.io","account":"ann","state":"sleeping","new":1}],"more":{}}"#;
        let document: Document = serde_json::from_str(text).unwrap();
        assert_eq!((document.lanes[0].state.as_str(), document.lanes[0].limit), ("sleeping", None));
    }
}
