//! What is known of an image that was handed out: whether its blobs are wanted, and which of them clients took
//! themselves.
//!
//! [`Interest`] decides and is told the time; it knows neither queue nor fills.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use oci::{Contents, Digest, Platform};

use crate::source::Origin;

/// How long blobs are fetched on the guess that a client wants them, before it has asked for one. Clients that pull ask
/// within a round trip of theirs.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// The same once a client has asked for the configuration: dockerd takes that at once, and its layers when those of
/// other images are through. So do tools that only look at an image, and never ask for more.
const GRACE_AFTER_CONFIG: Duration = Duration::from_secs(60);
/// How long a manifest that was handed out explains a request of one of its layers, and what was found out about its
/// blobs holds.
pub(super) const RECENT: Duration = Duration::from_secs(600);
/// Blobs of one manifest that are prefetched; docker's images have at most 128.
const BLOBS_MAX: usize = 256;

/// An image whose manifest was handed out.
pub(super) struct Image {
    pub(super) origin: Origin,
    /// For what machine an index says that it is.
    pub(super) platform: Option<Platform>,
    config: Option<Digest>,
    /// The configuration, then the layers in the manifest's order, which is that in which clients take them.
    blobs: Vec<Digest>,
    state: Mutex<State>,
}

struct State {
    interest: Interest,
    /// Who has each of the blobs to fetch.
    marks: Vec<Mark>,
}

/// Who fetches a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Nobody so far.
    Nobody,
    /// It was prefetched.
    Prefetched,
    /// A client asked for it.
    Client,
}

/// What a client asked for, in a request of a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whether what clients do not ask for themselves is now to be fetched.
    pub(super) fetch_rest: bool,
    /// Whether a client now wants the image of which that was not known.
    pub(super) is_news: bool,
    /// Whether what it asked for was prefetched.
    pub(super) was_prefetched: bool,
}

impl Image {
    pub(super) fn new(origin: Origin, platform: Option<Platform>, contents: Contents, now: Instant) -> Self {
        let config = contents.config;
        let mut blobs: Vec<Digest> = Vec::new();
        for blob in contents.blobs.iter().filter(|blob| !blob.media_type.is_foreign()) {
            if blobs.len() < BLOBS_MAX && !blobs.contains(&blob.digest) {
                blobs.push(blob.digest);
            }
        }
        let marks = vec![Mark::Nobody; blobs.len()];
        let state = Mutex::new(State { interest: Interest::Idle { since: now }, marks });
        Self { origin, platform, config, blobs, state }
    }

    pub(super) fn blobs(&self) -> &[Digest] {
        &self.blobs
    }

    /// Notes that a client got the manifest. Returns whether the blobs are to be fetched.
    pub(super) fn handed_out(&self, now: Instant, is_likely: bool) -> bool {
        let mut state = self.lock();
        let fetch = state.interest.handed_out(now, is_likely);
        if fetch {
            state.marks.fill(Mark::Nobody);
        }
        fetch
    }

    /// Notes that a client asked for all of a blob, or all from some byte on.
    pub(super) fn asked_for(&self, digest: &Digest, now: Instant) -> Asked {
        let mut state = self.lock();
        let Some(at) = self.blobs.iter().position(|blob| blob == digest) else { return Asked::default() };
        let was_prefetched = state.marks[at] == Mark::Prefetched;
        state.marks[at] = Mark::Client;
        if self.config == Some(*digest) && self.blobs.len() > 1 {
            state.interest.config_asked_for(now);
            return Asked { was_prefetched, ..Asked::default() };
        }
        let is_news = !matches!(state.interest, Interest::Wanted { .. });
        Asked { fetch_rest: state.interest.layer_asked_for(now), is_news, was_prefetched }
    }

    /// Takes a blob to prefetch; false where a client or another prefetch has it.
    pub(super) fn take(&self, digest: &Digest) -> bool {
        let mut state = self.lock();
        let Some(at) = self.blobs.iter().position(|blob| blob == digest) else { return false };
        let is_free = state.marks[at] == Mark::Nobody;
        if is_free {
            state.marks[at] = Mark::Prefetched;
        }
        is_free
    }

    /// Notes that a blob was not prefetched after all.
    pub(super) fn put_back(&self, digest: &Digest) {
        let mut state = self.lock();
        let at = self.blobs.iter().position(|blob| blob == digest);
        if let Some(mark) = at.and_then(|at| state.marks.get_mut(at))
            && *mark == Mark::Prefetched
        {
            *mark = Mark::Nobody;
        }
    }

    /// Returns the blobs that nobody fetches so far, in order.
    pub(super) fn left(&self) -> Vec<Digest> {
        let state = self.lock();
        let blobs = self.blobs.iter().zip(&state.marks);
        blobs.filter(|(_, mark)| **mark == Mark::Nobody).map(|(blob, _)| *blob).collect()
    }

    /// Returns how much longer its blobs are fetched without another request for one; zero is no longer.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.lock().interest.patience(now)
    }

    /// Returns whether its blobs are fetched on a guess.
    pub(super) fn is_guessed(&self) -> bool {
        matches!(self.lock().interest, Interest::Guessed { .. })
    }

    /// Returns whether nothing of it is fetched until a client asks for a layer.
    pub(super) fn waits_for_a_layer(&self) -> bool {
        matches!(self.lock().interest, Interest::Idle { .. } | Interest::Unwanted { .. })
    }

    /// Gives the guess up: it was wrong.
    pub(super) fn give_up(&self, now: Instant) {
        self.lock().interest.end_guess(Interest::Unwanted { since: now });
    }

    /// Notes that all of its blobs are stored.
    pub(super) fn settle(&self, now: Instant) {
        self.lock().interest.end_guess(Interest::Settled { since: now });
    }

    /// Notes that its blobs are not fetched after all, until the next client asks for one.
    pub(super) fn put_off(&self, now: Instant) {
        let mut state = self.lock();
        if state.interest.patience(now) > Duration::ZERO {
            state.interest = Interest::Idle { since: now };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much clients want of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interest {
    /// The manifest was handed out then; nothing is fetched.
    Idle { since: Instant },
    /// The blobs are fetched on a guess until then.
    Guessed { until: Instant },
    /// A client asked for a layer, the last time then; what it does not take itself is fetched.
    Wanted { since: Instant },
    /// All of it was stored then.
    Settled { since: Instant },
    /// Nobody came for what was fetched on a guess.
    Unwanted { since: Instant },
}

impl Interest {
    /// Returns whether the blobs are to be fetched. `is_likely` says that clients have asked for such images.
    fn handed_out(&mut self, now: Instant, is_likely: bool) -> bool {
        match *self {
            Self::Guessed { until } if now < until => return false,
            Self::Wanted { since } | Self::Settled { since } if is_recent(since, now) => return false,
            // One wrong guess is enough: tools that look at an image come again.
            Self::Guessed { .. } | Self::Unwanted { .. } => *self = Self::Unwanted { since: now },
            _ if is_likely => {
                *self = Self::Guessed { until: now + GRACE };
                return true;
            }
            Self::Idle { .. } | Self::Wanted { .. } | Self::Settled { .. } => {
                *self = Self::Idle { since: now };
            }
        }
        false
    }

    /// Returns whether the other blobs are to be fetched.
    fn layer_asked_for(&mut self, now: Instant) -> bool {
        let before = *self;
        let is_explained = match before {
            Self::Idle { since } | Self::Unwanted { since } => is_recent(since, now),
            Self::Guessed { .. } | Self::Wanted { .. } | Self::Settled { .. } => true,
        };
        if is_explained {
            *self = Self::Wanted { since: now };
        }
        match before {
            Self::Idle { .. } | Self::Unwanted { .. } => is_explained,
            Self::Guessed { until } => now >= until,
            Self::Wanted { .. } | Self::Settled { .. } => false,
        }
    }

    fn config_asked_for(&mut self, now: Instant) {
        if let Self::Guessed { until } = self
            && now < *until
        {
            *until = now + GRACE_AFTER_CONFIG;
        }
    }

    fn patience(&self, now: Instant) -> Duration {
        match self {
            Self::Guessed { until } => until.saturating_duration_since(now),
            Self::Unwanted { .. } => Duration::ZERO,
            Self::Idle { .. } | Self::Wanted { .. } | Self::Settled { .. } => Duration::MAX,
        }
    }

    fn end_guess(&mut self, outcome: Self) {
        if matches!(self, Self::Guessed { .. }) {
            *self = outcome;
        }
    }
}

fn is_recent(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_manifest_handed_out_is_a_guess_once() {
        let now = Instant::now();
        let (idle, old) = (Interest::Idle { since: now }, now + RECENT);
        let guessed = Interest::Guessed { until: now + GRACE };
        let table = [
            // What it was, when, is it likely: what it is, and whether blobs are fetched.
            (idle, now, true, guessed, true),
            (idle, now + SECOND, false, Interest::Idle { since: now + SECOND }, false),
            (guessed, now + SECOND, true, guessed, false),
            (guessed, now + GRACE, true, Interest::Unwanted { since: now + GRACE }, false),
            (Interest::Unwanted { since: now }, old, true, Interest::Unwanted { since: old }, false),
            (Interest::Wanted { since: now }, now + SECOND, true, Interest::Wanted { since: now }, false),
            (Interest::Wanted { since: now }, old, true, Interest::Guessed { until: old + GRACE }, true),
            (Interest::Settled { since: now }, now + SECOND, true, Interest::Settled { since: now }, false),
            (Interest::Settled { since: now }, old, true, Interest::Guessed { until: old + GRACE }, true),
            (Interest::Settled { since: now }, old, false, Interest::Idle { since: old }, false),
        ];
        for (mut interest, at, is_likely, then, fetched) in table {
            let before = interest;
            let result = interest.handed_out(at, is_likely);
            assert_eq!((interest, result), (then, fetched), "{before:?} {is_likely}");
        }
    }

    #[test]
    fn a_layer_asked_for_makes_the_rest_wanted() {
        let now = Instant::now();
        let later = now + SECOND;
        let wanted = Interest::Wanted { since: later };
        let table = [
            (Interest::Idle { since: now }, wanted, true),
            (Interest::Unwanted { since: now }, wanted, true),
            (Interest::Guessed { until: now + GRACE }, wanted, false),
            (Interest::Guessed { until: now }, wanted, true),
            (Interest::Wanted { since: now }, wanted, false),
            (Interest::Settled { since: now }, wanted, false),
        ];
        for (mut interest, then, fetched) in table {
            let before = interest;
            let result = interest.layer_asked_for(later);
            assert_eq!((interest, result), (then, fetched), "{before:?}");
        }
        let mut forgotten = Interest::Idle { since: now };
        assert!(!forgotten.layer_asked_for(now + RECENT), "the manifest was another client's");
    }

    #[test]
    fn patience_ends_with_the_grace_and_a_config_stretches_it() {
        let now = Instant::now();
        let mut guess = Interest::Guessed { until: now + GRACE };
        assert_eq!(guess.patience(now), GRACE);
        assert_eq!(guess.patience(now + GRACE), Duration::ZERO);
        guess.config_asked_for(now + SECOND);
        assert_eq!(guess.patience(now + SECOND), GRACE_AFTER_CONFIG);
        let mut over = Interest::Guessed { until: now };
        over.config_asked_for(now);
        assert_eq!(over.patience(now), Duration::ZERO, "it comes too late");
        assert_eq!(Interest::Wanted { since: now }.patience(now + RECENT), Duration::MAX);
        assert_eq!(Interest::Unwanted { since: now }.patience(now), Duration::ZERO);
    }
}
