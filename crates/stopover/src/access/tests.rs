//! What is remembered of passwords, and for how long.

use std::fs;

use super::*;

/// A file of one user, and whoever goes by it.
struct Bench {
    _folder: tempfile::TempDir,
    access: Access,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, format!("ann:{}", bcrypt::hash("right", 4).unwrap())).unwrap();
        let options = config::Access { htpasswd: Some(path), realm: None };
        let (clock, metrics) = (Clock::default(), Metrics::new());
        let access = Access::new(&options, clock.clone(), Arc::clone(&metrics)).unwrap();
        Self { _folder: folder, access, clock, metrics }
    }

    async fn admit(&self, header: &'static str) -> Result<Option<Arc<str>>, Denied> {
        self.access.admit(Some(&HeaderValue::from_static(header))).await
    }

    fn verified(&self) -> u64 {
        self.metrics.access_verifications.get()
    }
}

/// `ann:right`
const RIGHT: &str = "Basic YW5uOnJpZ2h0";
/// `ann:wrong`
const WRONG: &str = "Basic YW5uOndyb25n";

#[tokio::test]
async fn a_right_password_is_remembered_for_ten_minutes_after_its_last_use() {
    let bench = Bench::new();
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for (later, verified) in [(0, 1), (9, 1), (9, 1), (11, 2), (1, 2)] {
        bench.clock.turn_on(minutes(later));
        assert_eq!(bench.admit(RIGHT).await, Ok(Some("ann".into())));
        assert_eq!(bench.verified(), verified, "{later} minutes later");
    }
}

#[tokio::test]
async fn a_wrong_password_is_remembered_for_half_a_minute() {
    let bench = Bench::new();
    for (later, verified) in [(0, 1), (20, 1), (20, 2)] {
        bench.clock.turn_on(Duration::from_secs(later));
        assert_eq!(bench.admit(WRONG).await, Err(Denied::Wrong));
        assert_eq!(bench.verified(), verified, "{later} s later");
    }
    assert_eq!(bench.admit("Bearer x").await, Err(Denied::Wrong));
    assert_eq!(bench.access.admit(None).await, Err(Denied::Anonymous));
    assert_eq!(bench.verified(), 2, "what is no password is not verified");
}

/// Whoever guesses users must not tell from the time it takes which of them there are.
#[tokio::test]
async fn a_user_that_there_is_not_is_verified_as_one_that_there_is() {
    let bench = Bench::new();
    // `bob:right`, and nobody's own password, which is empty.
    for header in ["Basic Ym9iOnJpZ2h0", "Basic Ym9iOg=="] {
        assert_eq!(bench.admit(header).await, Err(Denied::Wrong));
    }
    assert_eq!(bench.verified(), 2);
}

#[test]
fn the_realm_is_quoted() {
    assert_eq!(challenge(r#"a "b" \ c"#).to_str().unwrap(), r#"Basic realm="a \"b\" \\ c""#);
    assert_eq!(challenge("Küche").as_bytes(), "Basic realm=\"Küche\"".as_bytes());
}
