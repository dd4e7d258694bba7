//! Blobs: redirects, ranges, and bodies that break.

use std::time::Duration;

use hubsim::{Fault, Kind, Options, Redirect, Target, Times};

use super::*;

#[tokio::test]
async fn every_kind_of_redirect_is_followed_without_credentials() {
    for redirect in [Redirect::Absolute, Redirect::Relative, Redirect::Nested, Redirect::None] {
        let bench = Bench::with(Options { redirect, ..Options::default() }, |_| {}).await;
        let blob = bench.blob(0, None).await.expect("it is there");
        assert_eq!((blob.start, blob.size.is_some()), (0, true), "{redirect:?}");
        let (size, bytes) = (blob.size, read(blob).await.expect("nothing breaks"));
        assert_eq!(size, Some(bytes.len() as u64));
        assert_eq!(Digest::of(oci::Algorithm::Sha256, &bytes), *bench.layer());
        let counters = bench.hub.counters();
        assert_eq!(counters.refused_cdn_auth, 0, "{redirect:?}");
        assert_eq!(counters.authorized_at("cdn").count(), 0, "{redirect:?}");
        assert_eq!(counters.blob_get, 1, "{redirect:?}");
    }
}

#[tokio::test]
async fn a_range_is_kept_through_the_redirect() {
    let bench = Bench::new().await;
    let whole = read(bench.blob(0, None).await.expect("it is there")).await.expect("nothing breaks");
    for (start, end) in [(0, Some(1)), (500, Some(1500)), (1000, None), (whole.len() as u64 - 1, None)] {
        let part = bench.blob(start, end).await.expect("the range is there");
        assert_eq!((part.start, part.size), (start, Some(whole.len() as u64)));
        let expected = &whole[start as usize..end.map_or(whole.len(), |end| end as usize)];
        assert!(read(part).await.expect("nothing breaks") == expected, "{start} {end:?}");
    }
    let ranges: Vec<_> = bench.hub.counters().requests.into_iter().filter_map(|seen| seen.range).collect();
    assert!(ranges.contains(&"bytes=500-1499".to_owned()) && ranges.contains(&"bytes=1000-".to_owned()));
    assert_eq!(kind_of(bench.blob(whole.len() as u64, None).await), Some(SourceErrorKind::BadAnswer));
}

#[tokio::test]
async fn a_registry_that_ignores_the_range_is_told_apart_from_one_that_lies() {
    let bench = Bench::new().await;
    bench.hub.fault(Fault::NoRange, Times::Once);
    let blob = bench.blob(1000, None).await.expect("the whole comes");
    assert_eq!(blob.start, 0);
    drop(blob);
    bench.hub.fault(Fault::BadContentRange, Times::Once);
    assert_eq!(kind_of(bench.blob(1000, None).await), Some(SourceErrorKind::BadAnswer));
}

#[tokio::test]
async fn a_url_that_storage_refuses_is_signed_afresh_once() {
    for redirect in [Redirect::Absolute, Redirect::Relative] {
        let bench = Bench::with(Options { redirect, ..Options::default() }, |_| {}).await;
        bench.hub.fault(Fault::Cdn403, Times::Once);
        read(bench.blob(0, None).await.expect("the second URL is good")).await.expect("nothing breaks");
        assert_eq!(bench.hub.counters().blob_get, 2, "{redirect:?}");
        bench.hub.fault(Fault::Cdn403, Times::Always);
        assert_eq!(kind_of(bench.blob(0, None).await), Some(SourceErrorKind::Denied));
        assert_eq!(bench.hub.counters().blob_get, 4, "{redirect:?}");
    }
}

#[tokio::test]
async fn a_redirect_that_leads_astray_is_refused() {
    let bench = Bench::new().await;
    for (fault, kind) in [
        (Fault::RedirectLoop, SourceErrorKind::BadAnswer),
        (Fault::RedirectTo("file:///etc/passwd".to_owned()), SourceErrorKind::BadAnswer),
        (Fault::RedirectTo("http://ann:hunter2@127.0.0.1/x".to_owned()), SourceErrorKind::BadAnswer),
    ] {
        bench.hub.fault(fault.clone(), Times::Always);
        let error = bench.blob(0, None).await.err().expect("it leads astray");
        assert_eq!(error.kind, kind, "{fault}");
        assert!(!error.to_string().contains("hunter2"));
        bench.hub.clear_faults();
    }
    assert!(bench.hub.counters().total() < 40, "no loop goes on for long");
}

#[tokio::test]
async fn an_answer_that_is_encoded_is_refused() {
    let bench = Bench::new().await;
    bench.hub.fault(Fault::ContentEncodingGzip, Times::Always);
    assert_eq!(kind_of(bench.blob(0, None).await), Some(SourceErrorKind::BadAnswer));
}

#[tokio::test]
async fn a_body_that_is_cut_ends_with_an_error_after_what_came() {
    let bench = Bench::new().await;
    bench.hub.fault(Fault::CutAfter(1000), Times::Once);
    let mut blob = bench.blob(0, None).await.expect("the head is good");
    let mut received = 0;
    let error = loop {
        match blob.body.next().await.expect("an error comes before the end") {
            Ok(chunk) => received += chunk.len(),
            Err(error) => break error,
        }
    };
    assert_eq!((received, error.kind), (1000, SourceErrorKind::Unavailable));
    let rest = bench.blob(1000, None).await.expect("the rest is there");
    assert_eq!(rest.start, 1000);
}

#[tokio::test]
async fn a_body_that_stalls_times_out() {
    let short = |options: &mut config::Upstream| options.stall_timeout = Duration::from_millis(50);
    let bench = Bench::with(Options::default(), short).await;
    bench.hub.fault(Fault::StallAfter(1000), Times::Always);
    let blob = bench.blob(0, None).await.expect("the head is good");
    assert_eq!(kind_of(read(blob).await), Some(SourceErrorKind::Timeout));
}

#[tokio::test]
async fn a_blob_is_measured_by_head_even_where_storage_refuses_heads() {
    let bench = Bench::new().await;
    let size =
        bench.upstream.blob_size(&bench.repository(), bench.layer()).await.expect("it is there").content;
    assert!(size.is_some());
    assert_eq!((bench.hub.counters().blob_head, bench.hub.counters().blob_get), (1, 0));
    let head = Target { kind: Some(Kind::Blobs), method: Some(http::Method::HEAD), ..Target::default() };
    bench.hub.fault_on(Fault::Status(405, None), Times::Always, head);
    assert_eq!(
        bench.upstream.blob_size(&bench.repository(), bench.layer()).await.expect("it is there").content,
        size
    );
    let lost = Digest::of(oci::Algorithm::Sha256, b"lost");
    let answer = bench.upstream.blob_size(&bench.repository(), &lost).await;
    assert_eq!(kind_of(answer), Some(SourceErrorKind::NotFound));
}

#[tokio::test]
async fn an_empty_blob_and_one_of_one_byte_work() {
    let bench = Bench::new().await;
    for bytes in [&b""[..], b"x"] {
        let digest = bench.hub.push_blob(bytes.to_vec());
        bench.hub.link_blob(REPOSITORY, &digest);
        let blob = bench.upstream.blob(&bench.repository(), &digest, 0, None).await.expect("it is there");
        assert_eq!(blob.size, Some(bytes.len() as u64));
        assert_eq!(read(blob).await.expect("nothing breaks"), bytes);
    }
}

#[tokio::test]
async fn a_body_without_a_length_or_with_a_wrong_one_is_left_to_the_caller_to_judge() {
    let bench = Bench::new().await;
    let whole = read(bench.blob(0, None).await.expect("it is there")).await.expect("nothing breaks");
    bench.hub.fault(Fault::NoContentLength, Times::Once);
    let blob = bench.blob(0, None).await.expect("it is there");
    assert_eq!(blob.size, None);
    assert!(read(blob).await.expect("nothing breaks") == whole);
    bench.hub.fault(Fault::WrongLength(5), Times::Once);
    assert_eq!(
        kind_of(read(bench.blob(0, None).await.expect("a head")).await),
        Some(SourceErrorKind::Unavailable)
    );
    bench.hub.fault(Fault::WrongLength(-5), Times::Once);
    let short = read(bench.blob(0, None).await.expect("a head")).await.expect("it ends where it said");
    assert_eq!(short.len(), whole.len() - 5);
}
