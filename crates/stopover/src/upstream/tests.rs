//! The registry client against the stand-in Hub, which counts what it is asked.

mod accounts;
mod blobs;
mod lanes;
mod manifests;
mod passes;
mod trouble;

use std::sync::Arc;

use futures_util::StreamExt;
use hubsim::{
    Hub, Options,
    images::{self, Image},
};
use oci::{Digest, RepositoryName, Tag};

use super::Upstream;
use crate::{
    clock::Clock,
    config::{self, Secret},
    egress::{Egress, EgressOptions, Proxies, WayOut},
    metrics::Metrics,
    source::{BlobStream, Purpose, Source, SourceError, SourceErrorKind},
};

const REPOSITORY: &str = "library/busybox";

/// A Hub with one image, and the client that asks it.
struct Bench {
    hub: Hub,
    image: Image,
    upstream: Arc<Upstream>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Options::default(), |_| {}).await
    }

    async fn with(options: Options, configure: impl FnOnce(&mut config::Upstream)) -> Self {
        let hub = Hub::start(options).await;
        let image = images::busybox(&hub, REPOSITORY, "latest", images::Format::OciIndex);
        let (clock, metrics) = (Clock::default(), Metrics::new());
        let upstream = client(&hub, &clock, &metrics, configure);
        Self { hub, image, upstream, clock, metrics }
    }

    fn repository(&self) -> RepositoryName {
        name(REPOSITORY)
    }

    async fn resolve(&self) -> Result<crate::source::Resolved, SourceError> {
        self.upstream.resolve(&self.repository(), &tag("latest")).await.map(|told| told.content)
    }

    async fn manifest(&self) -> Result<oci::Manifest, SourceError> {
        self.upstream
            .manifest(&self.repository(), &tag("latest").into(), Purpose::Missing)
            .await
            .map(|told| told.content)
    }

    async fn blob(&self, start: u64, end: Option<u64>) -> Result<BlobStream, SourceError> {
        self.upstream.blob(&self.repository(), self.layer(), start, end).await
    }

    fn layer(&self) -> &Digest {
        &self.image.layers[0]
    }
}

fn client(
    hub: &Hub,
    clock: &Clock,
    metrics: &Arc<Metrics>,
    configure: impl FnOnce(&mut config::Upstream),
) -> Arc<Upstream> {
    let mut options = config::Upstream { url: hub.registry_url(), ..config::Upstream::default() };
    configure(&mut options);
    let egress = Egress::new(&EgressOptions { proxies: Proxies::Direct, ..EgressOptions::default() });
    let ways = vec![WayOut { name: "default".into(), egress }];
    Upstream::new(&options, ways, None, Arc::clone(metrics), clock.clone()).expect("the URL is right")
}

fn with_account(options: &mut config::Upstream) {
    options.username = Some("ann".to_owned());
    options.password = Some(Secret::new("hunter2"));
}

fn name(text: &str) -> RepositoryName {
    text.parse().expect("a name")
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

async fn read(mut blob: BlobStream) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

fn kind_of<T>(answer: Result<T, SourceError>) -> Option<SourceErrorKind> {
    answer.err().map(|error| error.kind)
}
