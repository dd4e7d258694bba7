//! The ping, and what is no pull.

use hubsim::{Hub, Options};

use crate::support::Mirror;

/// Statement 1.
#[tokio::test]
async fn a_ping_needs_no_account_and_says_which_api_is_spoken() {
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start(&hub).await;
    let reply = mirror.get("/v2/").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    assert_eq!(reply.header("docker-distribution-api-version"), "registry/2.0");
}
