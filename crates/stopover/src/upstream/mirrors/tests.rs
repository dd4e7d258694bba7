//! Who is asked, in which order, and what is held against whom: with sources that say what they are told to.

use std::{collections::VecDeque, sync::Mutex};

use futures_util::{StreamExt, future, stream};
use oci::Algorithm;

use super::*;
use crate::{
    config::{Account, Credential, Secret},
    source::{LaneName, LaneState},
    upstream::token::locked,
};

/// What a source says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    Content,
    /// The head of a blob of ten bytes, and five of them.
    Half,
    No(SourceErrorKind),
    Nothing,
}

use Says::{Content, Half, No, Nothing};
use SourceErrorKind as Kind;

/// Everything that was asked, of whom, in order.
type Asked = Arc<Mutex<Vec<String>>>;

struct Fake {
    name: &'static str,
    asked: Asked,
    /// What it says, one after the other; the last for ever.
    says: Mutex<VecDeque<Says>>,
    thrift: Mutex<Thrift>,
}

impl Fake {
    fn new(name: &'static str, asked: &Asked) -> Arc<Self> {
        let (says, thrift) = (Mutex::new([Content].into()), Mutex::new(Thrift::Plenty));
        Arc::new(Self { name, asked: Arc::clone(asked), says, thrift })
    }

    fn says(&self, says: impl IntoIterator<Item = Says>) {
        *locked(&self.says) = says.into_iter().collect();
    }

    async fn asked<T>(&self, what: impl ToString, content: impl FnOnce(Says) -> T) -> Result<T, SourceError> {
        locked(&self.asked).push(format!("{} {}", self.name, what.to_string()));
        let says = {
            let mut says = locked(&self.says);
            if says.len() > 1 { says.pop_front().expect("there are two") } else { says[0] }
        };
        match says {
            No(kind) => Err(SourceError::new(self.name.into(), kind, "it was told to")),
            Nothing => future::pending().await,
            says => Ok(content(says)),
        }
    }
}

fn told<T>(content: T) -> Told<T> {
    Told { content, lane: None }
}

fn descriptor() -> Descriptor {
    manifest().descriptor
}

fn manifest() -> Manifest {
    let bytes =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    Manifest::from_answer(
        Some("application/vnd.oci.image.index.v1+json"),
        Bytes::from_static(bytes),
        Algorithm::Sha256,
    )
    .expect("it is one")
}

impl Source for Fake {
    fn registry(&self) -> &str {
        self.name
    }

    fn lanes(&self) -> Vec<LaneReport> {
        vec![LaneReport {
            account: "anonymous".to_owned(),
            egress: Some("default".to_owned()),
            limit: None,
            remaining: None,
            window: None,
            used: 0,
            resets_in: None,
            state: LaneState::Open,
            reason: None,
            counted_for: None,
        }]
    }

    fn thrift(&self, _: &RepositoryName) -> Thrift {
        *locked(&self.thrift)
    }

    fn resolve<'a>(&'a self, _: &'a RepositoryName, _: &'a Tag) -> Answer<'a, Told<Resolved>> {
        Box::pin(self.asked("resolve", |_| told(Resolved::Descriptor(descriptor()))))
    }

    fn manifest<'a>(
        &'a self,
        _: &'a RepositoryName,
        reference: &'a Reference,
        _: Purpose,
    ) -> Answer<'a, Told<Manifest>> {
        let what = if matches!(reference, Reference::Tag(_)) { "manifest by tag" } else { "manifest" };
        Box::pin(self.asked(what, |_| told(manifest())))
    }

    fn has_manifest<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Descriptor>> {
        Box::pin(self.asked("has_manifest", |_| told(descriptor())))
    }

    fn blob_size<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Told<Option<u64>>> {
        Box::pin(self.asked("blob_size", |_| told(Some(10))))
    }

    fn blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Digest,
        start: u64,
        end: Option<u64>,
    ) -> Answer<'a, BlobStream> {
        let content = move |says| {
            let end = end.unwrap_or(10) as usize;
            let bytes = b"0123456789"[start as usize..if says == Half { 5 } else { end }].to_vec();
            let body = stream::iter([Ok(Bytes::from(bytes))]).boxed();
            BlobStream { start, size: Some(10), lane: None, body }
        };
        Box::pin(self.asked(format!("blob {start}-"), content))
    }

    fn tags<'a>(&'a self, _: &'a RepositoryName, _: &'a Page) -> Answer<'a, TagPage> {
        Box::pin(self.asked("tags", |_| TagPage { tags: Vec::new(), next: None }))
    }

    fn referrers<'a>(&'a self, _: &'a RepositoryName, _: &'a Digest) -> Answer<'a, Bytes> {
        Box::pin(self.asked("referrers", |_| Bytes::new()))
    }
}

/// A registry and a mirror, or more.
struct Bench {
    asked: Asked,
    registry: Arc<Fake>,
    mirror: Arc<Fake>,
    both: Mirrors,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new(when: MirrorWhen) -> Self {
        Self::with(&mirror_of("gcr", when), config::Upstream::default())
    }

    fn with(mirror: &config::Mirror, options: config::Upstream) -> Self {
        let (asked, clock, metrics) = (Asked::default(), Clock::default(), Metrics::new());
        let (registry, fake) = (Fake::new("registry", &asked), Fake::new("gcr", &asked));
        let mirror = Mirror::new("docker.io", mirror, UNPACED, fake.clone(), &metrics, &clock);
        let both = Mirrors::new(registry.clone(), vec![mirror], &options);
        Self { asked, registry, mirror: fake, both, clock, metrics }
    }

    async fn manifest(&self) -> Result<Option<LaneName>, SourceError> {
        self.manifest_of("library/alpine", b"a").await
    }

    async fn manifest_of(&self, repository: &str, content: &[u8]) -> Result<Option<LaneName>, SourceError> {
        let reference = Reference::Digest(digest(content));
        let told = self.both.manifest(&name(repository), &reference, Purpose::Missing).await;
        told.map(|told| told.lane)
    }

    async fn blob(&self, content: &[u8], start: u64) -> Result<BlobStream, SourceError> {
        self.both.blob(&name("library/alpine"), &digest(content), start, None).await
    }

    /// Returns what was asked since the last look.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.asked))
    }
}

fn mirror_of(name: &str, when: MirrorWhen) -> config::Mirror {
    config::Mirror {
        name: name.to_owned(),
        url: "https://mirror.example".to_owned(),
        repository_prefix: None,
        repositories: Vec::new(),
        when,
    }
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn digest(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

async fn read(stream: BlobStream) -> Vec<u8> {
    stream.body.map(|bytes| bytes.expect("nothing breaks").to_vec()).concat().await
}

const LATER: Duration = Duration::from_secs(11 * 60);

#[tokio::test]
async fn a_mirror_is_asked_first_or_where_the_registry_is_to_be_spared_or_fails() {
    use MirrorWhen::{First, Low};
    let spent = No(Kind::TooManyRequests);
    for (when, thrift, registry, mirror, asked, from) in [
        (First, Thrift::Plenty, Content, Content, &["gcr"][..], Ok("gcr")),
        (First, Thrift::Low, Content, Content, &["gcr"], Ok("gcr")),
        (First, Thrift::Plenty, Content, No(Kind::NotFound), &["gcr", "registry"], Ok("registry")),
        (First, Thrift::Plenty, Content, No(Kind::Unavailable), &["gcr", "registry"], Ok("registry")),
        (First, Thrift::Plenty, Content, No(Kind::TooManyRequests), &["gcr", "registry"], Ok("registry")),
        (First, Thrift::Plenty, Content, No(Kind::WrongContent), &["gcr", "registry"], Ok("registry")),
        (
            First,
            Thrift::Plenty,
            spent,
            No(Kind::Unavailable),
            &["gcr", "registry"],
            Err(Kind::TooManyRequests),
        ),
        (Low, Thrift::Plenty, Content, Content, &["registry"], Ok("registry")),
        (Low, Thrift::Low, Content, Content, &["gcr"], Ok("gcr")),
        (Low, Thrift::Low, Content, No(Kind::NotFound), &["gcr", "registry"], Ok("registry")),
        (Low, Thrift::Low, spent, No(Kind::NotFound), &["gcr", "registry"], Err(Kind::TooManyRequests)),
        (Low, Thrift::Plenty, spent, Content, &["registry", "gcr"], Ok("gcr")),
        (Low, Thrift::Plenty, No(Kind::Unavailable), Content, &["registry", "gcr"], Ok("gcr")),
        (Low, Thrift::Plenty, No(Kind::Timeout), Content, &["registry", "gcr"], Ok("gcr")),
        (Low, Thrift::Plenty, No(Kind::BadAnswer), Content, &["registry", "gcr"], Ok("gcr")),
        (Low, Thrift::Plenty, No(Kind::WrongContent), Content, &["registry", "gcr"], Ok("gcr")),
        (
            Low,
            Thrift::Plenty,
            No(Kind::Timeout),
            No(Kind::NotFound),
            &["registry", "gcr"],
            Err(Kind::Timeout),
        ),
        (Low, Thrift::Plenty, No(Kind::NotFound), Content, &["registry"], Err(Kind::NotFound)),
        (Low, Thrift::Plenty, No(Kind::Unauthorized), Content, &["registry"], Err(Kind::Unauthorized)),
        (Low, Thrift::Plenty, No(Kind::Denied), Content, &["registry"], Err(Kind::Denied)),
    ] {
        let bench = Bench::new(when);
        *locked(&bench.registry.thrift) = thrift;
        bench.registry.says([registry]);
        bench.mirror.says([mirror]);
        let row = format!("{when:?} {thrift:?} {registry:?} {mirror:?}");
        let is = bench.manifest().await.map_err(|error| (error.kind, error.registry));
        let lane = |from: &str| (from == "gcr").then(|| LaneName::from("mirror gcr"));
        assert_eq!(is, from.map(lane).map_err(|kind| (kind, "registry".into())), "{row}");
        assert_eq!(
            bench.asked(),
            asked.iter().map(|who| format!("{who} manifest")).collect::<Vec<_>>(),
            "{row}"
        );
    }
}

#[tokio::test]
async fn what_a_tag_names_and_who_has_what_is_only_ever_asked_of_the_registry() {
    let bench = Bench::new(MirrorWhen::First);
    bench.registry.says([No(Kind::Unavailable)]);
    let (name, digest, tag) = (name("library/alpine"), digest(b"a"), "3.20".parse::<Tag>().expect("a tag"));
    let both = &bench.both;
    both.resolve(&name, &tag).await.expect_err("it is down");
    both.manifest(&name, &Reference::Tag(tag), Purpose::Missing).await.expect_err("it is down");
    both.has_manifest(&name, &digest).await.expect_err("it is down");
    both.blob_size(&name, &digest).await.expect_err("it is down");
    both.tags(&name, &Page::default()).await.expect_err("it is down");
    both.referrers(&name, &digest).await.expect_err("it is down");
    let asked = ["resolve", "manifest by tag", "has_manifest", "blob_size", "tags", "referrers"];
    assert_eq!(bench.asked(), asked.map(|what| format!("registry {what}")));
}

#[tokio::test]
async fn what_an_account_is_kept_for_is_never_named_to_a_mirror() {
    let account = Account {
        name: "ann".to_owned(),
        credential: Credential::Password { username: "ann".to_owned(), password: Secret::new("pw") },
        repositories: vec![name("acme")],
    };
    let options = config::Upstream { accounts: vec![account], ..config::Upstream::default() };
    let bench = Bench::with(&mirror_of("gcr", MirrorWhen::First), options);
    bench.registry.says([No(Kind::Unavailable)]);
    for private in ["acme", "acme/app", "acme/app/base"] {
        bench.manifest_of(private, b"a").await.expect_err("the registry is down");
        assert_eq!(bench.asked(), ["registry manifest"], "{private}");
    }
    bench.manifest_of("acmes/app", b"a").await.expect("another's is public");
    assert_eq!(bench.asked(), ["gcr manifest"]);
}

#[tokio::test]
async fn a_mirror_is_asked_for_its_repositories_alone() {
    let library =
        config::Mirror { repositories: vec![name("library")], ..mirror_of("gcr", MirrorWhen::First) };
    let bench = Bench::with(&library, config::Upstream::default());
    bench.manifest_of("library/alpine", b"a").await.expect("it is there");
    bench.manifest_of("grafana/grafana", b"a").await.expect("it is there");
    assert_eq!(bench.asked(), ["gcr manifest", "registry manifest"]);
}

#[tokio::test]
async fn what_a_mirror_has_not_is_not_asked_of_it_again_for_minutes() {
    let bench = Bench::new(MirrorWhen::First);
    for kind in [Kind::NotFound, Kind::Unauthorized, Kind::Denied, Kind::Unsupported] {
        bench.mirror.says([No(kind)]);
        for _ in 0..2 {
            bench.manifest().await.expect("the registry has it");
        }
        assert_eq!(bench.asked(), ["gcr manifest", "registry manifest", "registry manifest"], "{kind:?}");
        bench.mirror.says([Content]);
        bench.manifest_of("library/alpine", b"another").await.expect("the mirror has it");
        bench.manifest_of("library/other", b"a").await.expect("the mirror has it");
        bench.blob(b"a", 0).await.expect("the mirror has it, as a blob");
        assert_eq!(bench.asked(), ["gcr manifest", "gcr manifest", "gcr blob 0-"], "{kind:?}");
        bench.clock.turn_on(LATER);
    }
    bench.manifest().await.expect("the mirror has it by now");
    assert_eq!(bench.asked(), ["gcr manifest"]);
}

#[tokio::test]
async fn a_mirror_that_does_not_answer_rests_longer_each_time() {
    let bench = Bench::new(MirrorWhen::First);
    bench.mirror.says([No(Kind::Unavailable)]);
    let asked_of_ten = async || {
        for _ in 0..10 {
            bench.manifest().await.expect("the registry has it");
        }
        bench.asked().iter().filter(|asked| asked.starts_with("gcr")).count()
    };
    assert_eq!(asked_of_ten().await, 3);
    bench.clock.turn_on(Duration::from_secs(61));
    assert_eq!(asked_of_ten().await, 1, "one finds out");
    bench.clock.turn_on(Duration::from_secs(61));
    assert_eq!(asked_of_ten().await, 0);
    let [lane] = &bench.both.mirrors[0].lanes()[..] else { panic!("it has one") };
    assert_eq!((&*lane.account, lane.state), ("mirror gcr", LaneState::Resting));
    bench.clock.turn_on(Duration::from_secs(61));
    bench.mirror.says([Content]);
    assert_eq!(asked_of_ten().await, 10);
    assert_eq!(bench.both.mirrors[0].lanes()[0].state, LaneState::Open);
}

#[tokio::test]
async fn a_mirror_that_hangs_is_waited_for_until_its_time_is_over() {
    let bench = Bench::new(MirrorWhen::First);
    bench.mirror.says([Nothing]);
    let (repository, wanted) = (name("library/alpine"), digest(b"a"));
    let mirror = &bench.both.mirrors[0];
    for _ in 0..3 {
        let soon = Instant::now() + Duration::from_millis(20);
        let asked =
            mirror.answer(&repository, Wanted::Blob(wanted), |it| it.blob_size(&repository, &wanted), soon);
        assert!(asked.await.is_none());
    }
    assert!(!mirror.may_have(&repository, Wanted::Blob(wanted)), "it rests");
}

#[tokio::test]
async fn a_mirror_whose_manifest_is_wrong_is_left_out_for_a_while() {
    let bench = Bench::new(MirrorWhen::First);
    bench.mirror.says([No(Kind::WrongContent), Content]);
    for content in [b"a", b"b", b"c"] {
        bench.manifest_of("library/alpine", content).await.expect("the registry has it");
    }
    assert_eq!(bench.asked().iter().filter(|asked| asked.starts_with("gcr")).count(), 1);
    bench.clock.turn_on(LATER);
    bench.manifest().await.expect("the mirror has it");
    assert_eq!(bench.asked(), ["gcr manifest"]);
    let counted =
        r#"stopover_mirror_requests_total{registry="docker.io",mirror="gcr",result="wrong_content"} 1"#;
    assert!(bench.metrics.encode().contains(counted), "{}", bench.metrics.encode());
}

#[tokio::test]
async fn a_blob_that_a_mirror_breaks_off_goes_on_at_the_registry() {
    let bench = Bench::new(MirrorWhen::First);
    bench.mirror.says([Half, Content]);
    let stream = bench.blob(b"a", 0).await.expect("the mirror has it");
    assert_eq!(stream.lane.as_deref(), Some("mirror gcr"));
    assert_eq!(read(stream).await, b"01234");
    let rest = bench.blob(b"a", 5).await.expect("the registry has it");
    assert_eq!((rest.start, rest.lane.as_deref()), (5, None));
    assert_eq!(read(rest).await, b"56789");
    bench.blob(b"b", 0).await.expect("another is the mirror's still");
    assert_eq!(bench.asked(), ["gcr blob 0-", "registry blob 5-", "gcr blob 0-"]);
}

#[tokio::test]
async fn a_blob_that_turns_out_wrong_is_asked_of_the_registry_and_held_against_who_sent_it() {
    let bench = Bench::new(MirrorWhen::First);
    read(bench.blob(b"a", 0).await.expect("the mirror has it")).await;
    bench.both.was_wrong(&name("library/alpine"), &digest(b"a"));
    bench.blob(b"a", 0).await.expect("the registry has it");
    bench.blob(b"b", 0).await.expect("the registry has it");
    assert_eq!(bench.asked(), ["gcr blob 0-", "registry blob 0-", "registry blob 0-"]);
    bench.clock.turn_on(LATER);
    // One that never came from the mirror is not its fault.
    bench.both.was_wrong(&name("library/alpine"), &digest(b"c"));
    bench.blob(b"c", 0).await.expect("the registry has it");
    bench.blob(b"b", 0).await.expect("the mirror has it");
    assert_eq!(bench.asked(), ["registry blob 0-", "gcr blob 0-"]);
}
