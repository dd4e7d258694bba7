//! Every metric, in one table: what is counted, under which name and labels.
//!
//! The names beginning `registry_proxy_` are registry 3's, so that its dashboards keep working; the others are ours.
//! Label sets are bounded: no repository, tag, digest, client or URL is ever a label.

mod lanes;

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

pub use self::lanes::Lane;
use self::lanes::LaneMetrics;

/// Registry 3's bounds for the time of a request, in seconds.
const HTTP_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Words that label one request: closed sets, so the number of series is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLabels {
    /// `version`, `manifest`, `blob`, `tags`, `referrers` or `other`.
    pub endpoint: &'static str,
    /// How it was answered: an outcome's word, or `error`.
    pub result: &'static str,
    /// The HTTP status.
    pub code: u16,
    /// `get`, `head` or `other`.
    pub method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OurLabels {
    endpoint: &'static str,
    result: &'static str,
    code: u16,
}

impl OurLabels {
    fn of(labels: &RequestLabels) -> Self {
        Self { endpoint: labels.endpoint, result: labels.result, code: labels.code }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    handler: &'static str,
    code: u16,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerLabels {
    handler: &'static str,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    registry: String,
    request: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    registry: String,
    mirror: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EgressLabels {
    egress: String,
}

/// What a request was for, in registry 3's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// A layer or a configuration.
    Blob,
    /// A manifest or an index.
    Manifest,
}

/// Why somebody was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessRefusal {
    /// No user and password came.
    Anonymous,
    /// They were wrong.
    Wrong,
    /// Too many waited to be verified.
    Busy,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// What became of a blob that was fetched before a client asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetched {
    /// Its fetch began.
    Started,
    /// A client asked for it after that.
    Wanted,
    /// The fetch was stopped, since no client asked for any blob of the image.
    Cancelled,
    /// It could not be fetched.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PrefetchLabels {
    result: &'static str,
}

/// Registry 3's five counters for one type of content.
#[derive(Default)]
struct Proxied {
    requests: Counter,
    hits: Counter,
    misses: Counter,
    pulled_bytes: Counter,
    pushed_bytes: Counter,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// The registries that are named in labels; all of them where nobody said.
    named: OnceLock<BTreeSet<String>>,
    blobs: Proxied,
    manifests: Proxied,
    requests: Family<OurLabels, Counter>,
    request_seconds: Histogram,
    http_requests: Family<HttpLabels, Counter>,
    http_seconds: Family<HandlerLabels, Histogram>,
    upstream_requests: Family<UpstreamLabels, Counter>,
    mirror_requests: Family<MirrorLabels, Counter>,
    access_refusals: Family<RefusalLabels, Counter>,
    prefetch: Family<PrefetchLabels, Counter>,
    egress_received_bytes: Family<EgressLabels, Counter>,
    lanes: LaneMetrics,
    /// Fills under way.
    pub fills: Gauge,
    /// Clients that read from a fill under way.
    pub followers: Gauge,
    connections: Family<ListenerLabels, Gauge>,
    tls_not_after: Family<[(&'static str, &'static str); 0], Gauge>,
    /// Certificates that replaced another while it was in force.
    pub tls_reloads: Counter,
    /// Changed files of certificates that could not be used.
    pub tls_reload_failures: Counter,
    /// Clients with whom no TLS came about.
    pub tls_handshake_failures: Counter,
    /// Tags served past their freshness because the registry failed.
    pub stale_served: Counter,
    /// Contents that were not what their digest says: from upstream.
    pub upstream_verification_failures: Counter,
    /// Contents that were not what their digest says: on disk, now in quarantine.
    pub disk_verification_failures: Counter,
    /// Streams from upstream that broke and were resumed.
    pub fill_resumes: Counter,
    /// Blobs streamed past a disk that would not take them.
    pub passed: Counter,
    /// Log lines dropped since whoever reads the log did not keep up.
    pub log_lines_dropped: Counter,
    /// Blobs and manifests removed because nobody used them for `storage.ttl`.
    pub expired: Counter,
    /// Passwords that were held against a hash, each at the cost of some 50 ms of a core.
    pub access_verifications: Counter,
}

impl Metrics {
    /// Returns the metrics, all zero; the build's version and commit stand in `stopover_build_info`.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::default(),
            named: OnceLock::new(),
            blobs: Proxied::default(),
            manifests: Proxied::default(),
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(|| Histogram::new(HTTP_BUCKETS)),
            upstream_requests: Family::default(),
            mirror_requests: Family::default(),
            access_refusals: Family::default(),
            prefetch: Family::default(),
            egress_received_bytes: Family::default(),
            lanes: LaneMetrics::default(),
            fills: Gauge::default(),
            followers: Gauge::default(),
            connections: Family::default(),
            tls_not_after: Family::default(),
            tls_reloads: Counter::default(),
            tls_reload_failures: Counter::default(),
            tls_handshake_failures: Counter::default(),
            stale_served: Counter::default(),
            upstream_verification_failures: Counter::default(),
            disk_verification_failures: Counter::default(),
            fill_resumes: Counter::default(),
            passed: Counter::default(),
            log_lines_dropped: Counter::default(),
            expired: Counter::default(),
            access_verifications: Counter::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    /// Counts one request of a client, answered.
    pub fn request(&self, labels: &RequestLabels, seconds: f64) {
        let RequestLabels { endpoint, code, method, .. } = *labels;
        let handler = match endpoint {
            "version" => "base",
            endpoint => endpoint,
        };
        self.http_requests.get_or_create(&HttpLabels { handler, code, method }).inc();
        self.http_seconds.get_or_create(&HandlerLabels { handler, method }).observe(seconds);
        self.requests.get_or_create(&OurLabels::of(labels)).inc();
        self.request_seconds.observe(seconds);
    }

    /// Counts content found in the cache or not, and the bytes of it sent to the client.
    pub fn served(&self, content: ContentType, hit: bool, bytes: u64) {
        let proxied = self.proxied(content);
        proxied.requests.inc();
        if hit { &proxied.hits } else { &proxied.misses }.inc();
        proxied.pushed_bytes.inc_by(bytes);
    }

    /// Returns registry 3's five counts: requests, hits, misses, bytes from upstream, bytes to clients.
    pub fn proxy_counts(&self, content: ContentType) -> [u64; 5] {
        let Proxied { requests, hits, misses, pulled_bytes, pushed_bytes } = self.proxied(content);
        [requests, hits, misses, pulled_bytes, pushed_bytes].map(|counter| counter.get())
    }

    /// Counts bytes of content that came from upstream.
    pub fn pulled(&self, content: ContentType, bytes: u64) {
        self.proxied(content).pulled_bytes.inc_by(bytes);
    }

    /// Counts a request that was not let in.
    pub fn access_refused(&self, why: AccessRefusal) {
        let reason = match why {
            AccessRefusal::Anonymous => "anonymous",
            AccessRefusal::Wrong => "wrong",
            AccessRefusal::Busy => "busy",
        };
        self.access_refusals.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Counts a blob that is prefetched.
    pub fn prefetch(&self, what: Prefetched) {
        let result = match what {
            Prefetched::Started => "started",
            Prefetched::Wanted => "wanted",
            Prefetched::Cancelled => "cancelled",
            Prefetched::Failed => "failed",
        };
        self.prefetch.get_or_create(&PrefetchLabels { result }).inc();
    }

    /// Says which registries are named in labels. Others are `other`, since clients may name any number of them.
    pub fn name_registries(&self, names: impl IntoIterator<Item = String>) {
        self.named.get_or_init(|| names.into_iter().collect());
    }

    fn label_of(&self, registry: &str) -> String {
        let is_named = self.named.get().is_none_or(|named| named.contains(registry));
        if is_named { registry } else { "other" }.to_owned()
    }

    /// Counts a connection on the pull port as open until the returned value is dropped. `listener` is `tcp`, `tls` or
    /// `unix`.
    pub fn connection(&self, listener: &'static str) -> Under {
        Under::way(&self.connections.get_or_create(&ListenerLabels { listener }))
    }

    /// Notes until when the certificate in force holds, since 1970.
    pub fn tls_certificate_not_after(&self, since_1970: std::time::Duration) {
        self.tls_not_after.get_or_create(&[]).set(since_1970.as_secs().cast_signed());
    }

    /// Counts one request to a registry. `request` is a word such as `manifest_get`; `result` is `ok` or an error's word.
    pub fn upstream(&self, registry: &str, request: &'static str, result: &'static str) {
        let labels = UpstreamLabels { registry: self.label_of(registry), request, result };
        self.upstream_requests.get_or_create(&labels).inc();
    }

    /// Counts what came of asking a registry's mirror. `result` is `ok`, `broken` in the middle of it, or an error's word.
    pub fn mirror(&self, registry: &str, mirror: &str, result: &'static str) {
        let labels = MirrorLabels { registry: self.label_of(registry), mirror: mirror.to_owned(), result };
        self.mirror_requests.get_or_create(&labels).inc();
    }

    /// Returns the counter of the bytes that come by a way out, by its name in the configuration.
    pub fn egress_received(&self, egress: &str) -> Counter {
        self.egress_received_bytes.get_or_create_owned(&EgressLabels { egress: egress.to_owned() })
    }

    /// Returns all of it in the text format of Prometheus (OpenMetrics).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string cannot fail");
        text
    }

    fn proxied(&self, content: ContentType) -> &Proxied {
        match content {
            ContentType::Blob => &self.blobs,
            ContentType::Manifest => &self.manifests,
        }
    }

    fn register(&mut self) {
        self.register_registry_3();
        self.register_ours();
        self.register_tls();
    }

    fn register_registry_3(&mut self) {
        let names = [
            ("registry_proxy_requests", "Requests for content"),
            ("registry_proxy_hits", "Requests for content that was in the cache"),
            ("registry_proxy_misses", "Requests for content that was not in the cache"),
            ("registry_proxy_pulled_bytes", "Bytes of content received from upstream"),
            ("registry_proxy_pushed_bytes", "Bytes of content sent to clients"),
        ];
        for (at, (name, help)) in names.into_iter().enumerate() {
            let family = Family::<TypeLabels, Counter>::default();
            for (proxied, r#type) in [(&mut self.blobs, "blob"), (&mut self.manifests, "manifest")] {
                let counter = family.get_or_create(&TypeLabels { r#type }).clone();
                match at {
                    0 => proxied.requests = counter,
                    1 => proxied.hits = counter,
                    2 => proxied.misses = counter,
                    3 => proxied.pulled_bytes = counter,
                    _ => proxied.pushed_bytes = counter,
                }
            }
            self.registry.register(name, help, family);
        }
        let r = &mut self.registry;
        r.register(
            "registry_http_requests",
            "Requests by handler, status and method",
            self.http_requests.clone(),
        );
        r.register("registry_http_request_duration_seconds", "Time of requests", self.http_seconds.clone());
    }

    fn register_tls(&mut self) {
        let r = &mut self.registry;
        r.register(
            "stopover_tls_certificate_not_after_seconds",
            "Until when the certificate in force holds, in seconds since 1970",
            self.tls_not_after.clone(),
        );
        r.register(
            "stopover_tls_reloads",
            "Certificates taken in place of another",
            self.tls_reloads.clone(),
        );
        r.register(
            "stopover_tls_reload_failures",
            "Changed certificates that could not be used",
            self.tls_reload_failures.clone(),
        );
        r.register(
            "stopover_tls_handshake_failures",
            "Clients with whom no TLS came about",
            self.tls_handshake_failures.clone(),
        );
    }

    fn register_ours(&mut self) {
        let r = &mut self.registry;
        r.register("stopover_requests", "Requests by endpoint, result and status", self.requests.clone());
        r.register(
            "stopover_request_seconds",
            "Time from request to last byte",
            self.request_seconds.clone(),
        );
        r.register("stopover_upstream_requests", "Requests to registries", self.upstream_requests.clone());
        r.register(
            "stopover_mirror_requests",
            "Requests to registries' mirrors",
            self.mirror_requests.clone(),
        );
        self.lanes.register(r);
        r.register(
            "stopover_egress_received_bytes",
            "Bytes received by each way out, heads and TLS included",
            self.egress_received_bytes.clone(),
        );
        r.register("stopover_fills", "Blobs being fetched now", self.fills.clone());
        r.register(
            "stopover_followers",
            "Clients reading a blob that is being fetched",
            self.followers.clone(),
        );
        r.register("stopover_connections", "Connections open on the pull port", self.connections.clone());
        r.register(
            "stopover_stale_served",
            "Tags served stale since the registry failed",
            self.stale_served.clone(),
        );
        r.register(
            "stopover_upstream_verification_failures",
            "Contents from upstream that were not what their digest says",
            self.upstream_verification_failures.clone(),
        );
        r.register(
            "stopover_disk_verification_failures",
            "Contents on disk that were not what their digest says",
            self.disk_verification_failures.clone(),
        );
        r.register("stopover_fill_resumes", "Broken transfers that were resumed", self.fill_resumes.clone());
        r.register("stopover_passed", "Blobs streamed past a disk that took no more", self.passed.clone());
        r.register(
            "stopover_log_lines_dropped",
            "Log lines nobody read in time",
            self.log_lines_dropped.clone(),
        );
        r.register(
            "stopover_prefetch",
            "Blobs fetched before a client asked for them",
            self.prefetch.clone(),
        );
        r.register("stopover_expired", "Contents removed as unused", self.expired.clone());
        r.register("stopover_access_refusals", "Requests not let in", self.access_refusals.clone());
        r.register("stopover_access_verifications", "Passwords verified", self.access_verifications.clone());
        let version = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        let build = prometheus_client::metrics::info::Info::new(version);
        r.register("stopover_build", "The build", build);
    }
}

/// Counts something that is under way: up when made, down when dropped.
pub struct Under(Gauge<i64, std::sync::atomic::AtomicI64>);

impl Under {
    /// Counts one more in `gauge` until the returned value is dropped.
    pub fn way(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.dec();
    }
}
