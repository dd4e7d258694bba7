//! How a fill begins: is the blob there by now, is there a part of it, how long is it.

use std::io;

use oci::Hasher;

use super::{Filler, Stop};
use crate::{
    cache::{
        Error,
        progress::{End, Ranges},
    },
    source::SourceError,
    store::hash_range,
};

impl Filler {
    /// Looks in the store once more: the fill before this one may have ended since the caller looked.
    pub(super) async fn look_again(&mut self) -> Result<bool, Stop> {
        let (digest, name) = (self.fill.digest, self.fill.origin.tree_name.clone());
        let looked = self
            .cache
            .blocking(move |parts| (parts.open_checked(&digest), parts.index.named_size(&name, &digest)));
        let Some((stored, expected_size)) = looked.await else {
            return Err(Stop::Failed(Error::Internal("looking in the store")));
        };
        self.expected_size = expected_size;
        let Some(stored) = stored else { return Ok(false) };
        self.fill.progress.send_modify(|progress| {
            progress.size = Some(stored.size());
            progress.present = Ranges::prefix_of(stored.size());
            progress.file = Some(stored.file);
            progress.end = Some(End::Found);
        });
        Ok(true)
    }

    /// Makes the file, or takes up what an earlier fill left of it.
    pub(super) async fn make_spool(&mut self) -> Result<(), Stop> {
        let digest = self.fill.digest;
        let made = self.cache.blocking(move |parts| {
            let spool = parts.store.spool(&digest)?;
            let mut hasher = Hasher::new(digest.algorithm());
            hash_range(spool.file(), 0, spool.taken_up_bytes(), &mut hasher)?;
            io::Result::Ok((spool, hasher))
        });
        let made = made.await.ok_or(Stop::Failed(Error::Internal("making a spool")))?;
        let (spool, hasher) = made.map_err(Stop::Disk)?;
        self.position = spool.taken_up_bytes();
        self.hashed = self.position;
        self.fill.begin(&spool, self.position);
        self.hasher = Some(hasher);
        self.spool = Some(spool);
        Ok(())
    }

    /// Learns how long the blob is where an earlier fill left a part: that may be all of it already, and where it is
    /// more, or nobody says, it is worth nothing.
    pub(super) async fn fit_what_was_taken_up(&mut self) -> Result<(), Stop> {
        while self.position > 0 {
            match self.ask_size().await {
                Ok(Some(size)) if self.position <= size => {
                    self.set_size(size);
                    return Ok(());
                }
                Ok(_) => {
                    if let Some(spool) = self.spool.take() {
                        spool.discard();
                    }
                    self.begin_anew();
                    self.make_spool().await?;
                }
                Err(error) => self.wait_after(error).await?,
            }
        }
        Ok(())
    }

    pub(super) async fn ask_size(&self) -> Result<Option<u64>, SourceError> {
        let origin = &self.fill.origin;
        match self.size.or(self.expected_size) {
            Some(size) => Ok(Some(size)),
            None => {
                let told = origin.source.blob_size(&origin.repository, &self.fill.digest).await;
                told.map(|told| told.content)
            }
        }
    }
}
