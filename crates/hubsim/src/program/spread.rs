//! Least, middle and most of some measured seconds.

use std::time::Duration;

use serde_json::{Value, json};

/// Returns least, median and most of `times`, in seconds, as JSON.
pub(crate) fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let seconds = |at: usize| times.get(at).map(Duration::as_secs_f64);
    json!({
        "min": seconds(0),
        "median": seconds(times.len() / 2),
        "max": seconds(times.len().wrapping_sub(1)),
    })
}
