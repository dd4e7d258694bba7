//! The way out by a proxy, as the environment names it: HTTP_PROXY, HTTPS_PROXY, NO_PROXY.

use base64::{Engine, engine::general_purpose::STANDARD};
use hubsim::{Hub, Options, images};

use crate::{
    rig::proxy::ForwardProxy,
    support::{Mirror, MirrorOptions, blob_path, manifest_path},
};

const REPOSITORY: &str = "library/alpine";

async fn hub_and_image() -> (Hub, images::Image) {
    let hub = Hub::start(Options::default()).await;
    let image = images::busybox(&hub, REPOSITORY, "1", images::Format::OciSingle);
    (hub, image)
}

/// Returns the Hub's URL by a name that the proxy alone knows.
fn url_for_the_proxy(scheme: &str, hub: &Hub) -> String {
    let port = hub.authority().rsplit_once(':').expect("the Hub has a port").1.to_owned();
    format!("{scheme}://hub.test:{port}")
}

/// A plain request goes to the proxy as a whole URL: registry, token service and CDN alike.
#[tokio::test]
async fn plain_requests_go_through_the_proxy_as_whole_urls() {
    for variable in ["HTTP_PROXY", "http_proxy"] {
        let (hub, image) = hub_and_image().await;
        let proxy = ForwardProxy::start().await;
        let url = url_for_the_proxy("http", &hub);
        let mirror =
            Mirror::start_with(&hub, MirrorOptions::default().upstream(&url).env(variable, proxy.url()))
                .await;
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest, "{variable}");
        assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
        let heads = proxy.heads();
        let through = |begin: &str| heads.iter().filter(|head| head.starts_with(begin)).count();
        assert!(through(&format!("HEAD {url}/v2/")) + through(&format!("GET {url}/v2/")) >= 3, "{heads:#?}");
        assert!(through(&format!("GET {}", hub.token_url())) >= 1, "{heads:#?}");
        assert!(through(&format!("GET {}", hub.cdn_url())) >= 1, "{heads:#?}");
        assert_eq!(hub.counters().total(), heads.len() as u64, "nothing goes past the proxy");
    }
}

/// What NO_PROXY names is asked directly.
#[tokio::test]
async fn what_no_proxy_names_is_asked_directly() {
    for except in ["127.0.0.1", "example.org, 127.0.0.1", "127.0.0.0/8", "*"] {
        let (hub, image) = hub_and_image().await;
        let proxy = ForwardProxy::start().await;
        let options = MirrorOptions::default().env("HTTP_PROXY", proxy.url()).env("NO_PROXY", except);
        let mirror = Mirror::start_with(&hub, options).await;
        assert_eq!(mirror.get(&manifest_path(REPOSITORY, "1")).await.digest(), image.manifest, "{except}");
        assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config, "{except}");
        assert_eq!(proxy.heads(), Vec::<String>::new(), "{except}");
    }
}

/// NO_PROXY for some hosts leaves the proxy to the others.
#[tokio::test]
async fn the_registry_may_be_behind_the_proxy_and_the_cdn_not() {
    let (hub, image) = hub_and_image().await;
    let proxy = ForwardProxy::start().await;
    let url = url_for_the_proxy("http", &hub);
    let options =
        MirrorOptions::default().upstream(&url).env("HTTP_PROXY", proxy.url()).env("NO_PROXY", "127.0.0.1");
    let mirror = Mirror::start_with(&hub, options).await;
    assert_eq!(mirror.get(&blob_path(REPOSITORY, image.config)).await.digest(), image.config);
    let heads = proxy.heads();
    assert!(!heads.is_empty() && heads.iter().all(|head| head.contains(&url)), "{heads:#?}");
}

/// An encrypted request goes through a tunnel: the proxy learns the host, and no credential of the registry.
#[tokio::test]
async fn encrypted_requests_go_through_a_tunnel_and_the_proxy_sees_no_credential() {
    let (hub, _) = hub_and_image().await;
    let proxy = ForwardProxy::start().await;
    let url = url_for_the_proxy("https", &hub);
    let with_password = proxy.url().replace("http://", "http://clerk:pr0xy-w0rd@");
    let options =
        MirrorOptions::default().upstream(&url).account("ann", "pw").env("HTTPS_PROXY", with_password);
    let mirror = Mirror::start_with(&hub, options).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert!((502..=503).contains(&reply.status), "the Hub speaks no TLS: {}", reply.status);
    let heads = proxy.heads();
    let authority = url.trim_start_matches("https://");
    assert!(!heads.is_empty(), "the proxy is asked");
    for head in &heads {
        assert!(head.starts_with(&format!("CONNECT {authority} HTTP/1.1\r\n")), "{head}");
        let head = head.to_lowercase();
        assert!(!head.contains("\r\nauthorization:"), "{head}");
        let own =
            format!("proxy-authorization: basic {}", STANDARD.encode("clerk:pr0xy-w0rd").to_lowercase());
        assert!(head.contains(&own), "the proxy's own account is sent to it: {head}");
    }
    assert!(
        !format!("{:?}{}", mirror.log_lines(), reply.text()).contains("pr0xy-w0rd"),
        "nor told anybody else"
    );
}

/// A proxy that is down is a registry that cannot be reached.
#[tokio::test]
async fn a_proxy_that_is_down_is_a_503_that_names_it() {
    let (hub, _) = hub_and_image().await;
    let proxy = ForwardProxy::start().await;
    let port = proxy.port();
    let url = proxy.url();
    drop(proxy);
    let mirror = Mirror::start_with(&hub, MirrorOptions::default().env("HTTP_PROXY", url)).await;
    let reply = mirror.get(&manifest_path(REPOSITORY, "1")).await;
    assert_eq!((reply.status, reply.error_code().as_str()), (503, "UNAVAILABLE"));
    assert!(reply.text().contains("proxy"), "port {port}: {}", reply.text());
    assert_eq!(hub.counters().total(), 0, "a proxy is not gone around");
}
