//! Writing the superblock: the witness of how far the log was durable.

use std::path::Path;

use ledge_proto::mutants;

use super::Writer;
use crate::error::OpenError;
use crate::format::superblock::{SUPERBLOCK_FILES, Superblock};
use crate::storage::{Storage, pwrite};

const NEW_SUPERBLOCK: &str = "super.tmp";

/// Replaces superblock file `n`: temporary file, sync, rename, sync of the directory.
pub(crate) fn write_superblock(
    storage: &dyn Storage,
    dir: &Path,
    n: usize,
    superblock: &Superblock,
) -> Result<(), OpenError> {
    let new = dir.join(NEW_SUPERBLOCK);
    let file = storage.create(&new).map_err(OpenError::io("create", &new))?;
    pwrite(&*file, &superblock.encode(), 0).map_err(OpenError::io("write", &new))?;
    file.fdatasync().map_err(OpenError::io("sync", &new))?;
    let path = dir.join(SUPERBLOCK_FILES[n % SUPERBLOCK_FILES.len()]);
    storage
        .rename(&new, &path)
        .map_err(OpenError::io("rename", &new))?;
    storage.sync_dir(dir).map_err(OpenError::io("sync", dir))
}

impl Writer {
    /// Records how far the log is durable, unless that is known already. A failure costs a witness, not data.
    pub(crate) fn mark(&mut self, clean: bool) -> Result<(), OpenError> {
        if self.poisoned.is_some() {
            return Ok(()); // The head may not be durable.
        }
        let head = if mutants::on("superblock-ahead") {
            self.head
        } else {
            self.synced
        };
        if self.superblock.durable_block == head.block && self.superblock.clean == clean {
            return Ok(());
        }
        let next = Superblock {
            generation: self.superblock.generation + 1,
            durable_block: head.block,
            durable_chain: head.chain,
            clean,
            ..self.superblock.clone()
        };
        write_superblock(
            &*self.catalog.storage,
            &self.catalog.dir,
            self.superblock_file,
            &next,
        )?;
        self.superblock_file = 1 - self.superblock_file;
        self.superblock = next;
        Ok(())
    }
}
