//! Manifests, tags and referrers: what is asked, and what is believed.

use hubsim::{Fault, Kind, Target, Times, images};
use oci::{ACCEPT_MANIFESTS, Page};

use super::*;
use crate::source::Resolved;

#[tokio::test]
async fn a_tag_is_resolved_by_head_alone() {
    let bench = Bench::new().await;
    let Ok(Resolved::Descriptor(descriptor)) = bench.resolve().await else { panic!("a HEAD would do") };
    assert_eq!(descriptor.digest, bench.image.manifest);
    let manifest = bench.manifest().await.expect("it is there");
    assert_eq!(manifest.descriptor, descriptor);
    assert_eq!(oci::Digest::of(oci::Algorithm::Sha256, &manifest.bytes), bench.image.manifest);
    let counters = bench.hub.counters();
    assert_eq!((counters.manifest_head, counters.manifest_get), (1, 1));
    assert_eq!(
        (counters.challenged, counters.token),
        (1, 1),
        "one challenge and one token do for a repository"
    );
}

#[tokio::test]
async fn a_request_carries_all_manifest_types_and_asks_for_plain_bytes() {
    let bench = Bench::new().await;
    bench.manifest().await.expect("it is there");
    let seen = bench.hub.counters().requests;
    let seen = seen.iter().rfind(|seen| seen.path.contains("/manifests/")).expect("it was asked");
    assert_eq!(seen.accept.as_deref(), Some(ACCEPT_MANIFESTS));
    assert_eq!(seen.accept_encoding.as_deref(), Some("identity"));
    assert!(seen.user_agent.as_deref().is_some_and(|agent| agent.starts_with("stopover/")));
    assert_eq!(seen.cookie, None);
}

#[tokio::test]
async fn a_head_that_is_refused_or_tells_too_little_costs_one_get() {
    for fault in [Fault::HeadRefused, Fault::HeadNoDigest, Fault::HeadUnauthorized] {
        let bench = Bench::new().await;
        bench.hub.fault(fault.clone(), Times::Always);
        let resolved = bench.resolve().await;
        let Ok(Resolved::Manifest(manifest)) = resolved else { panic!("{fault}: {:?}", resolved.err()) };
        assert_eq!(manifest.descriptor.digest, bench.image.manifest);
        assert_eq!(bench.hub.counters().manifest_get, 1, "{fault}");
    }
}

#[tokio::test]
async fn a_manifest_by_digest_is_looked_for_by_head() {
    let bench = Bench::new().await;
    let found = bench.upstream.has_manifest(&bench.repository(), &bench.image.platform).await;
    assert_eq!(found.expect("it is there").content.digest, bench.image.platform);
    let lost = bench.upstream.has_manifest(&bench.repository(), bench.layer()).await;
    assert_eq!(kind_of(lost), Some(SourceErrorKind::NotFound));
    assert_eq!(bench.hub.counters().manifest_get, 0);
}

#[tokio::test]
async fn a_manifest_that_is_not_its_digest_is_refused() {
    let bench = Bench::new().await;
    bench.hub.fault(Fault::ManifestNotItsDigest, Times::Always);
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::WrongContent));
    let by_digest = bench.image.platform.into();
    let answer = bench.upstream.manifest(&bench.repository(), &by_digest, Purpose::Missing).await;
    assert_eq!(kind_of(answer), Some(SourceErrorKind::WrongContent));
    assert!(bench.metrics.upstream_verification_failures.get() >= 1);
}

#[tokio::test]
async fn what_cannot_be_a_manifest_is_refused() {
    for fault in [Fault::Html200, Fault::HugeManifest(5 << 20), Fault::ContentEncodingGzip] {
        let bench = Bench::new().await;
        bench.manifest().await.expect("nothing is wrong yet");
        bench.hub.fault_on(fault.clone(), Times::Always, Target::kind(Kind::Manifests));
        assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::BadAnswer), "{fault}");
    }
}

#[tokio::test]
async fn a_sha512_digest_works() {
    let bench = Bench::new().await;
    let bytes =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let (algorithm, media_type) = (oci::Algorithm::Sha512, oci::OCI_INDEX);
    let digest = bench.hub.push_manifest_by(algorithm, REPOSITORY, media_type, &bytes[..], &["big"]);
    for reference in [digest.into(), tag("big").into()] {
        let manifest = bench
            .upstream
            .manifest(&bench.repository(), &reference, Purpose::Missing)
            .await
            .expect("it is there")
            .content;
        assert_eq!(manifest.descriptor.digest, digest);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_private_is_denied() {
    let bench = Bench::new().await;
    let lost = bench.upstream.resolve(&bench.repository(), &tag("lost")).await;
    assert_eq!(kind_of(lost), Some(SourceErrorKind::NotFound));
    bench.hub.make_private(REPOSITORY);
    bench.hub.expire_tokens();
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Unauthorized));
    bench.hub.fault_on(Fault::Status(403, None), Times::Always, Target::kind(Kind::Challenge));
    assert_eq!(kind_of(bench.manifest().await), Some(SourceErrorKind::Denied));
}

#[tokio::test]
async fn tags_are_listed_page_by_page_in_the_registrys_order() {
    let bench = Bench::new().await;
    for tag in ["a", "b", "c"] {
        bench.hub.tag(REPOSITORY, tag, &bench.image.manifest);
    }
    let mut page = Page { n: Some(3), last: None };
    let mut tags = Vec::new();
    loop {
        let answer = bench.upstream.tags(&bench.repository(), &page).await.expect("tags are listed");
        tags.extend(answer.tags);
        let Some(next) = answer.next else { break };
        page = next;
    }
    assert_eq!(tags, ["a", "b", "c", "latest"]);
    assert_eq!(bench.hub.counters().tags, 2);
}

#[tokio::test]
async fn referrers_come_as_sent_and_their_lack_is_said() {
    let bench = Bench::new().await;
    let digest = images::referrer(&bench.hub, REPOSITORY, &bench.image.platform, "application/example");
    let list = bench.upstream.referrers(&bench.repository(), &bench.image.platform).await.expect("a list");
    assert!(String::from_utf8_lossy(&list).contains(&digest.to_string()));
    bench.hub.fault(Fault::NoReferrers, Times::Always);
    let list = bench.upstream.referrers(&bench.repository(), &bench.image.platform).await;
    assert_eq!(kind_of(list), Some(SourceErrorKind::Unsupported));
}

#[tokio::test]
async fn the_quota_is_exported_under_the_accounts_name() {
    let bench = Bench::new().await;
    bench.hub.set_quota(100);
    bench.manifest().await.expect("it is there");
    let text = bench.metrics.encode();
    let lane = r#"{registry="docker.io",account="anonymous",egress="default"}"#;
    assert!(text.contains(&format!("stopover_quota_limit{lane} 100")), "{text}");
    assert!(text.contains(&format!("stopover_quota_remaining{lane} 99")), "{text}");
    let line =
        r#"stopover_upstream_requests_total{registry="docker.io",request="manifest_get",result="ok"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn a_registry_that_redirects_manifests_is_followed_as_anybody() {
    let backend = Bench::new().await;
    let front =
        Bench::with(hubsim::Options { auth: hubsim::Auth::Open, ..hubsim::Options::default() }, with_account)
            .await;
    let path = format!("{}/v2/{REPOSITORY}/manifests/latest", backend.hub.registry_url());
    front.hub.fault_on(Fault::RedirectTo(path), Times::Always, Target::kind(Kind::Manifests));
    let manifest = front.manifest().await.expect("the other registry has it");
    assert_eq!(manifest.descriptor.digest, backend.image.manifest);
    let counters = backend.hub.counters();
    assert_eq!((counters.token, counters.token_basic), (1, 0), "the account stays at home");
}
