//! What the cache asks of whoever has the bytes.
//!
//! A [`Source`] answers for one registry: an upstream, later a peer. It promises to send requests of its own
//! making (nothing of a client's), to keep credentials to itself, to retry what a retry may cure before the first
//! byte, and to answer or fail within its own deadlines. It knows nothing of clients, of the cache or of the disk.
//!
//! An [`Origin`] is a repository together with the sources that may be asked for it, in order of preference.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use oci::{Descriptor, Digest, Page, Reference, RepositoryName, Tag};

/// A future that a source returns; boxed, since sources are used behind `dyn`.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// A registry that can be asked. Every method sends at least one request.
pub trait Source: Send + Sync {
    /// Returns the registry's name as logs, metrics and messages have it, such as `docker.io`.
    fn registry(&self) -> &str;

    /// Returns by how many streams at one time blobs may be fetched where several bring more than one does. Each blob
    /// has one in any case.
    fn streams_max(&self) -> usize {
        1
    }

    /// Returns how things stand with each lane that the registry can be asked by, for the operator.
    fn lanes(&self) -> Vec<LaneReport> {
        Vec::new()
    }

    /// Returns whether what is left of the quota for `repository` is worth saving.
    fn thrift(&self, _repository: &RepositoryName) -> Thrift {
        Thrift::Plenty
    }

    /// Hears that content of this digest, as it was sent, was not what the digest says, so that it may be asked for
    /// elsewhere.
    fn was_wrong(&self, _repository: &RepositoryName, _digest: &Digest) {}

    /// Asks what `tag` names now, by HEAD; costs no quota where the registry can tell it so.
    fn resolve<'a>(&'a self, repository: &'a RepositoryName, tag: &'a Tag) -> Answer<'a, Told<Resolved>>;

    /// Asks for a manifest by GET. The bytes are those sent, at most `MANIFEST_BYTES_MAX`, and hash to the digest in
    /// their descriptor, which is the one asked for where `reference` is a digest.
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        purpose: Purpose,
    ) -> Answer<'a, Told<oci::Manifest>>;

    /// Asks whether the repository has a manifest of this digest, by HEAD.
    fn has_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Descriptor>>;

    /// Asks for a blob's size in bytes, by HEAD; `None` where the registry does not say.
    fn blob_size<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> Answer<'a, Told<Option<u64>>>;

    /// Opens a blob at `start` (in bytes), up to `end` (exclusive) or to its end. Unverified: the caller hashes.
    fn blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> Answer<'a, BlobStream>;

    /// Asks for one page of the repository's tags.
    fn tags<'a>(&'a self, repository: &'a RepositoryName, page: &'a Page) -> Answer<'a, TagPage>;

    /// Asks for everything that refers to `digest`, unfiltered: the index document as sent.
    fn referrers<'a>(&'a self, repository: &'a RepositoryName, digest: &'a Digest) -> Answer<'a, Bytes>;
}

/// The name of a lane for people: an account, or `anonymous`, and the way out that it went by.
pub type LaneName = Arc<str>;

/// An answer, and by which lane it came.
#[derive(Clone, Debug)]
pub struct Told<T> {
    /// What was said.
    pub content: T,
    /// The lane; `None` where there is but one way to ask.
    pub lane: Option<LaneName>,
}

impl<T> Told<T> {
    /// Returns the answer with its content replaced.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Told<U> {
        Told { content: with(self.content), lane: self.lane }
    }
}

/// What content is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for it, and there is nothing else to give.
    Missing,
    /// Something older can be given in its stead: not worth the last of a quota.
    Refresh,
}

/// Whether what is left of a quota is worth saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thrift {
    /// There is enough, or nothing is counted.
    Plenty,
    /// What is left is kept for what is not cached.
    Low,
}

/// How things stand with a lane: an account, or nobody's through one way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReport {
    /// The account's name in the configuration; `anonymous` without one.
    pub account: String,
    /// The way out; `None` for an account, which goes by any.
    pub egress: Option<String>,
    /// Manifest GETs allowed in a window, where the registry said so.
    pub limit: Option<u64>,
    /// How many of them are left.
    pub remaining: Option<u64>,
    /// How long a window is.
    pub window: Option<Duration>,
    /// Manifest GETs that went this way in the last window, by our own count.
    pub used: u64,
    /// When there is more to have, or the lane may be tried again; `None` where nothing is lacking or nobody knows.
    pub resets_in: Option<Duration>,
    /// Whether it can be used.
    pub state: LaneState,
    /// Why not, for people.
    pub reason: Option<String>,
    /// Who the registry says that it counts for: an address or an account's identifier.
    pub counted_for: Option<String>,
}

impl LaneReport {
    /// Returns whether anything is known of the lane beyond that it is there.
    pub fn was_asked(&self) -> bool {
        self.used > 0 || self.limit.is_some() || self.counted_for.is_some() || self.state != LaneState::Open
    }
}

/// Whether a lane can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneState {
    /// It can.
    Open,
    /// Its quota is spent.
    Spent,
    /// The registry wants the way out left alone for a while.
    Resting,
    /// The account does not get in.
    LoggedOut,
}

impl LaneState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Open, Self::Spent, Self::Resting, Self::LoggedOut];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Spent => "spent",
            Self::Resting => "resting",
            Self::LoggedOut => "logged_out",
        }
    }
}

/// What a tag names at the registry at this moment.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// The registry answered the HEAD in full; no content was sent.
    Descriptor(Descriptor),
    /// The registry would not say by HEAD, so the manifest itself was fetched, at the price of a GET.
    Manifest(oci::Manifest),
}

/// Bytes of a blob on their way.
pub struct BlobStream {
    /// The offset in bytes at which `body` starts. It is below the offset asked for where the registry ignored the
    /// range; the caller skips.
    pub start: u64,
    /// The size of the whole blob in bytes, where the registry says.
    pub size: Option<u64>,
    /// The lane that they come by.
    pub lane: Option<LaneName>,
    /// The bytes in order. It ends early, or with an error, where the line broke: the caller counts.
    pub body: BoxStream<'static, Result<Bytes, SourceError>>,
}

/// One page of a tag list, in the registry's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// The tags as sent.
    pub tags: Vec<String>,
    /// Where the next page starts, if there is one.
    pub next: Option<Page>,
}

/// A repository and who may be asked for it.
#[derive(Clone)]
pub struct Origin {
    /// The registry's name, such as `docker.io`; part of every key.
    pub registry: Arc<str>,
    /// The repository by its full name, such as `library/alpine`.
    pub repository: RepositoryName,
    /// The name under which the repository stands in the tree on disk: its own for the default registry,
    /// `<registry>/<repository>` for any other.
    pub tree_name: RepositoryName,
    /// Who to ask.
    pub source: Arc<dyn Source>,
    /// How long answers about tags hold.
    pub freshness: Freshness,
}

/// How long what was learned about tags may be used. All durations count from the last successful check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// A tag checked less than this ago is served without asking; zero asks each time.
    pub tag_ttl: Duration,
    /// How long a tag is served on while the registry fails.
    pub stale_if_error: Duration,
    /// How long a tag is served on while the registry says 401 or 403.
    pub stale_if_denied: Duration,
    /// How long a check may take before the cached tag is served instead.
    pub check_deadline: Duration,
    /// How long "there is no such thing" is believed.
    pub absent_ttl: Duration,
}

/// A failure of a source: what, whose fault, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{registry}: {message}")]
pub struct SourceError {
    /// The registry asked.
    pub registry: Arc<str>,
    /// What went wrong, as a closed set to decide by.
    pub kind: SourceErrorKind,
    /// What went wrong, for people; holds no secret and no signed URL.
    pub message: String,
    /// When it makes sense to ask again, if the registry said or a breaker knows.
    pub retry_after: Option<Duration>,
}

/// What went wrong at a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceErrorKind {
    /// The registry says there is no such repository, tag, manifest or blob.
    NotFound,
    /// The registry wants (other) credentials: 401.
    Unauthorized,
    /// The registry refuses these credentials: 403.
    Denied,
    /// The registry's quota is spent: 429.
    TooManyRequests,
    /// The registry does not offer this endpoint (referrers, tags).
    Unsupported,
    /// No answer: refused, reset, DNS, TLS, 5xx, broken body.
    Unavailable,
    /// No answer in time.
    Timeout,
    /// An answer that cannot be right: digest, length, media type, size, JSON.
    BadAnswer,
    /// Content that is not what its digest says.
    WrongContent,
    /// Configuration forbids what the registry asks for (a realm or redirect that is not allowed).
    Refused,
}

impl SourceErrorKind {
    /// Returns the word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::TooManyRequests => "too_many_requests",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad_answer",
            Self::WrongContent => "wrong_content",
            Self::Refused => "refused",
        }
    }
}

impl SourceError {
    /// Returns an error without a hint when to retry.
    pub fn new(registry: Arc<str>, kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self { registry, kind, message: message.into(), retry_after: None }
    }
}
