//! The blobs that wait to be prefetched, by registry: so many at once, so many images in all. It decides what is next
//! and starts nothing.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use oci::Digest;

use super::image::Image;

/// Images whose blobs wait, for each registry; beyond that the oldest make room.
const IMAGES_MAX: usize = 64;
/// How long nothing is prefetched after the disk took no more: such a blob would pass by and be fetched for nobody.
const DISK_REST: Duration = Duration::from_secs(60);

/// What waits, and what is under way.
pub(super) struct Queue {
    /// Prefetches at once, for each registry.
    at_once_max: usize,
    registries: HashMap<Arc<str>, Waiting>,
    rests_until: Option<Instant>,
}

#[derive(Default)]
struct Waiting {
    under_way: usize,
    images: VecDeque<(Arc<Image>, VecDeque<Digest>)>,
}

impl Queue {
    pub(super) fn new(at_once_max: usize) -> Self {
        Self { at_once_max, registries: HashMap::new(), rests_until: None }
    }

    /// Puts an image's blobs at the end of the queue, in place of what was there of it.
    pub(super) fn put(&mut self, image: Arc<Image>, blobs: Vec<Digest>, now: Instant) {
        if self.rests_until.is_some_and(|until| now < until) {
            return image.put_off(now);
        }
        let waiting = self.registries.entry(Arc::clone(&image.origin.registry)).or_default();
        waiting.images.retain(|(known, _)| !Arc::ptr_eq(known, &image));
        waiting.images.push_back((image, blobs.into()));
        if waiting.images.len() > IMAGES_MAX {
            let oldest_guess = waiting.images.iter().position(|(image, _)| image.is_guessed());
            let dropped = waiting.images.remove(oldest_guess.unwrap_or(0));
            dropped.inspect(|(image, _)| image.put_off(now));
        }
    }

    /// Takes the blob of the registry to prefetch next, if it is time for one: those of images that clients want before
    /// those of guesses. [`Queue::ended`] is to be called when it is through.
    pub(super) fn next(&mut self, registry: &Arc<str>, now: Instant) -> Option<(Arc<Image>, Digest)> {
        let waiting = self.registries.get_mut(registry)?;
        while waiting.under_way < self.at_once_max {
            waiting.images.retain(|(image, blobs)| {
                let is_over = image.patience(now).is_zero();
                if is_over {
                    image.give_up(now);
                }
                !is_over && !blobs.is_empty()
            });
            let wanted = waiting.images.iter().position(|(image, _)| !image.is_guessed());
            let Some((image, blobs)) = waiting.images.get_mut(wanted.unwrap_or(0)) else { break };
            if let Some(digest) = blobs.pop_front()
                && image.take(&digest)
            {
                waiting.under_way += 1;
                return Some((Arc::clone(image), digest));
            }
        }
        if waiting.under_way == 0 && waiting.images.is_empty() {
            self.registries.remove(registry);
        }
        None
    }

    /// Notes that a prefetch from the registry is through.
    pub(super) fn ended(&mut self, registry: &Arc<str>) {
        if let Some(waiting) = self.registries.get_mut(registry) {
            waiting.under_way -= 1;
        }
    }

    /// Takes an image out.
    pub(super) fn remove(&mut self, image: &Arc<Image>) {
        if let Some(waiting) = self.registries.get_mut(&image.origin.registry) {
            waiting.images.retain(|(known, _)| !Arc::ptr_eq(known, image));
        }
    }

    /// Empties the queue, and keeps it empty for a while: the disk takes no more.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rests_until = Some(now + DISK_REST);
        for waiting in self.registries.values_mut() {
            waiting.images.drain(..).for_each(|(image, _)| image.put_off(now));
        }
    }

    /// Returns whether the blob waits for its turn.
    #[cfg(test)]
    pub(super) fn waits_for(&self, registry: &Arc<str>, digest: &Digest) -> bool {
        let waiting = self.registries.get(registry);
        waiting.is_some_and(|waiting| waiting.images.iter().any(|(_, blobs)| blobs.contains(digest)))
    }
}
