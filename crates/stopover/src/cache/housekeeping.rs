//! What the cache does by itself: read the tree for what a new index lacks, and remove what nobody used for long.

use std::{collections::HashSet, time::Duration};

use oci::Digest;

use super::{Cache, Parts, kept::logged};

/// How often unused content is looked for: a tenth of its time to live, within these bounds.
const SWEEP_WAIT_MIN: Duration = Duration::from_secs(1);
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(3_600);

impl Cache {
    /// Reads the manifests in the tree for what an index made anew lacks. Serving goes on meanwhile; what is not yet
    /// known is asked of the registry.
    pub async fn rebuild_index(&self) {
        if self.parts.index.needs_rebuild() {
            self.blocking(Parts::rebuild_index).await;
        }
    }

    /// Removes content that nobody used for `ttl`, again and again.
    pub async fn expire(&self, ttl: Duration) {
        self.parts.index.set_ttl(ttl);
        let wait = (ttl / 10).clamp(SWEEP_WAIT_MIN, SWEEP_WAIT_MAX);
        loop {
            tokio::time::sleep(wait).await;
            self.blocking(move |parts| parts.remove_unused(ttl)).await;
        }
    }
}

impl Parts {
    fn rebuild_index(&self) {
        let mut manifests = 0_u64;
        let read = self.index.linked_manifests(&mut |repository, digest| {
            if self.note_stored_manifest(&repository, &digest) {
                manifests += 1;
                // The queue of the index is bounded; without waiting now and then it would drop some of these.
                if manifests.is_multiple_of(500) {
                    self.index.flush();
                }
            }
        });
        if logged("the tree was not read to its end; what the index lacks is asked of the registry", read) {
            self.index.rebuilt();
            tracing::info!(manifests, "the index was rebuilt from the tree");
        }
    }

    fn remove_unused(&self, ttl: Duration) {
        let now = self.clock.wall();
        let mut unused = Vec::new();
        let listed = self.store.digests(&mut |digest| match self.index.last_use(&digest) {
            Some(last_use) if now.since(last_use) > ttl => unused.push(digest),
            Some(_) => {}
            // Found in the tree and never used since: its time begins now.
            None => self.index.first_seen(&digest),
        });
        logged("the store was not read to its end; unused content stays for now", listed);
        for digest in &unused {
            self.remove(digest);
        }
        self.unlink_manifests(&unused);
        if !unused.is_empty() {
            tracing::info!(removed = unused.len(), ?ttl, "content that nobody used was removed");
        }
    }

    /// Takes removed manifests out of the repositories, so that no tag is moved to what is not there. Links of removed
    /// blobs stay, as with registry:2: they say that the repository has the blob, which is so.
    fn unlink_manifests(&self, removed: &[Digest]) {
        if removed.is_empty() {
            return;
        }
        let removed: HashSet<&Digest> = removed.iter().collect();
        let walked = self.index.linked_manifests(&mut |repository, digest| {
            if removed.contains(&digest) {
                logged("a manifest was not unlinked", self.index.unlink(&repository, &digest));
            }
        });
        logged("the tree was not read to its end; links of removed manifests stay", walked);
    }

    fn remove(&self, digest: &Digest) {
        if logged("unused content was not removed", self.store.remove(digest)) {
            self.index.forget(digest);
            self.metrics.expired.inc();
        }
    }
}
