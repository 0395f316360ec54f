//! Verifying one segment, block by block.

use std::path::Path;

use bytes::Bytes;
use ledge_proto::v1;
use prost::Message;

use super::frames::Tails;
use super::{Finding, FindingKind, VerifyReport};
use crate::error::OpenError;
use crate::format::block::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockKind, DIR_ENTRY_BYTES, block_chain, seeded_crc,
};
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::format::streams::StreamTail;
use crate::ids::{BlockChain, BlockNo};
use crate::snapshot::SnapshotHead;
use crate::storage::StorageFile;

/// Bytes read at once while looking for the next whole header.
const SEARCH_BYTES: u64 = 1024 * 1024;

pub(super) struct SegmentCheck<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a dyn StorageFile,
    pub(super) header: &'a SegmentHeader,
    /// Block expected next.
    pub(super) next: BlockNo,
    /// Chain up to the block before, when that one was whole.
    pub(super) chain: Option<BlockChain>,
    /// First block of the next segment.
    pub(super) successor: Option<BlockNo>,
    /// A block known to be durable from elsewhere.
    pub(super) witness: BlockNo,
    pub(super) report: &'a mut VerifyReport,
    pub(super) tails: &'a mut Tails,
}

impl SegmentCheck<'_> {
    /// Returns the block expected in the next segment, and the chain before it when known.
    pub(super) fn run(mut self) -> Result<(BlockNo, Option<BlockChain>), OpenError> {
        let mut off = SEGMENT_HEADER_BYTES as u64;
        loop {
            match self.read_header(off)? {
                Some(header) => off = self.block(off, &header)?,
                None => match self.find_header(off)? {
                    Some((at, header)) => {
                        self.hole(off, &header);
                        off = at;
                    }
                    None => {
                        self.end(off)?;
                        return Ok((self.successor.unwrap_or(self.next), self.chain));
                    }
                },
            }
        }
    }

    /// A valid header that belongs at or after the block expected.
    fn read_header(&self, off: u64) -> Result<Option<BlockHeader>, OpenError> {
        let mut buf = [0; BLOCK_HEADER_BYTES];
        let read = self
            .file
            .pread(&mut buf, off)
            .map_err(OpenError::io("read", self.path))?;
        let header = BlockHeader::decode(&buf[..read], self.header.seed()).ok();
        Ok(header.filter(|header| self.fits(off, header)))
    }

    fn fits(&self, off: u64, header: &BlockHeader) -> bool {
        off + header.block_len() as u64 <= self.header.segment_bytes
    }

    fn block(&mut self, off: u64, header: &BlockHeader) -> Result<u64, OpenError> {
        let after = off + header.span(self.header.align) as u64;
        let no = header.block_no;
        if no != self.next {
            let missing = (no > self.next).then(|| (self.next, no.previous()));
            self.finding(
                FindingKind::Gap,
                off,
                missing,
                format!("block {no} where block {} belongs", self.next),
            );
            self.chain = None;
        } else if self.chain.is_some_and(|chain| chain != header.prev_chain) {
            let detail = "the block does not continue the one before".to_owned();
            self.finding(FindingKind::BrokenChain, off, Some((no, no)), detail);
        }
        self.next = no.next();
        self.chain = None;
        let mut block = vec![0; header.block_len()];
        let read = self
            .file
            .pread(&mut block, off)
            .map_err(OpenError::io("read", self.path))?;
        let block = Bytes::from(block);
        let body = block.slice(BLOCK_HEADER_BYTES..);
        if read < block.len() || seeded_crc(self.header.seed(), std::iter::once(&body[..])) != header.body_crc
        {
            self.bad_body(off, header, &body)?;
            return Ok(after);
        }
        let dir = match header.directory(&body, self.header.seed()) {
            Ok(dir) => dir,
            Err(err) => {
                self.finding(FindingKind::Corruption, off, Some((no, no)), err.to_string());
                return Ok(after);
            }
        };
        if header.kind == BlockKind::Streams {
            match StreamTail::decode_all(&body) {
                Ok(tails) => tails.iter().for_each(|tail| self.tails.adopt(tail)),
                Err(err) => self.finding(FindingKind::Corruption, off, Some((no, no)), err.to_string()),
            }
        }
        if header.kind == BlockKind::Snapshot {
            let part = v1::Snapshot::decode(&body[..]).map_err(|err| err.to_string());
            let part = part.and_then(|part| SnapshotHead::of(&part).map_err(|err| err.to_string()));
            match part {
                Ok((head, number)) => self.snapshot(off, header, head, number),
                Err(err) => self.finding(FindingKind::Corruption, off, Some((no, no)), err),
            }
        }
        let body_at = off + BLOCK_HEADER_BYTES as u64;
        let mut chains = Vec::with_capacity(dir.len());
        for entry in &dir {
            let from = entry.off as usize;
            let frame = body.slice(from..from + entry.len as usize);
            chains.extend(
                self.tails
                    .frame(self.path, body_at + from as u64, no, entry, frame, self.report),
            );
        }
        if chains.len() == dir.len() {
            let own = if dir.is_empty() {
                &body[..]
            } else {
                &body[..dir.len() * DIR_ENTRY_BYTES]
            };
            self.chain = Some(block_chain(&block[..BLOCK_HEADER_BYTES], own, chains.into_iter()));
        }
        self.report.blocks += 1;
        self.report.bytes += block.len() as u64;
        Ok(after)
    }

    fn snapshot(&mut self, off: u64, header: &BlockHeader, head: SnapshotHead, number: u32) {
        let no = header.block_no;
        if let Some((seqs, detail)) = self.tails.snapshot(header.slot, no, head.clone(), number) {
            self.report.findings.push(Finding {
                kind: FindingKind::BrokenChain,
                path: self.path.to_owned(),
                offset: off,
                blocks: Some((no, no)),
                stream: Some(head.key),
                seqs: Some((seqs, seqs)),
                detail,
            });
        }
    }

    /// A block under a valid header whose body is not what was written: torn if it is the very end.
    fn bad_body(&mut self, off: u64, header: &BlockHeader, body: &[u8]) -> Result<(), OpenError> {
        let no = header.block_no;
        let later = self.find_header(off + BLOCK_HEADER_BYTES as u64)?;
        let vouched = no <= self.witness
            || self.successor.is_some()
            || later.is_some_and(|(_, later)| later.durable_block >= no);
        if !vouched {
            let detail = "the last block was being written when the log stopped".to_owned();
            self.finding(FindingKind::TornTail, off, Some((no, no)), detail);
            self.next = no;
            return Ok(());
        }
        let detail = "the checksum of its body does not match".to_owned();
        self.finding(FindingKind::Corruption, off, Some((no, no)), detail);
        // If the directory survived, it tells what is affected.
        if let Ok(dir) = header.directory(body, self.header.seed()) {
            for entry in &dir {
                self.tails.damaged(
                    self.path,
                    off + BLOCK_HEADER_BYTES as u64 + u64::from(entry.off),
                    no,
                    entry,
                    self.report,
                );
            }
        }
        Ok(())
    }

    /// No valid block at `off`, but one later.
    fn hole(&mut self, off: u64, later: &BlockHeader) {
        let missing = (later.block_no > self.next).then(|| (self.next, later.block_no.previous()));
        let vouched =
            later.durable_block >= self.next || self.next <= self.witness || self.successor.is_some();
        let kind = if vouched {
            FindingKind::Corruption
        } else {
            FindingKind::TornTail
        };
        self.finding(
            kind,
            off,
            missing,
            "no block can be read here, though there is one later".to_owned(),
        );
        self.next = later.block_no;
        self.chain = None;
    }

    /// Nothing valid from `off` on.
    fn end(&mut self, off: u64) -> Result<(), OpenError> {
        if let Some(successor) = self.successor {
            if self.next < successor {
                let missing = Some((self.next, successor.previous()));
                let detail = "no block can be read here, though there is a later segment".to_owned();
                self.finding(FindingKind::Corruption, off, missing, detail);
                self.chain = None;
            }
            return Ok(());
        }
        let mut buf = [0; 24];
        let read = self
            .file
            .pread(&mut buf, off)
            .map_err(OpenError::io("read", self.path))?;
        let started = read == buf.len() && buf[..4] == *b"LBK1" && buf[16..24] == self.next.0.to_le_bytes();
        let torn_already = self
            .report
            .findings
            .last()
            .is_some_and(|f| f.kind == FindingKind::TornTail);
        if started && !torn_already {
            let vouched = self.next <= self.witness;
            let kind = if vouched {
                FindingKind::Corruption
            } else {
                FindingKind::TornTail
            };
            let detail = "the header of the last block is not whole".to_owned();
            self.finding(kind, off, Some((self.next, self.next)), detail);
        }
        Ok(())
    }

    /// The first valid header from `off` on, at any place where a block may start.
    fn find_header(&self, off: u64) -> Result<Option<(u64, BlockHeader)>, OpenError> {
        let align = u64::from(self.header.align);
        let mut at = off.next_multiple_of(align);
        let mut buf = Vec::new();
        while at + BLOCK_HEADER_BYTES as u64 <= self.header.segment_bytes {
            let len = SEARCH_BYTES.min(self.header.segment_bytes - at);
            buf.resize(usize::try_from(len).unwrap_or(0), 0);
            let read = self
                .file
                .pread(&mut buf, at)
                .map_err(OpenError::io("read", self.path))?;
            for (n, head) in buf[..read].chunks(usize::from(self.header.align)).enumerate() {
                let here = at + n as u64 * align;
                let found = BlockHeader::decode(head, self.header.seed()).ok();
                let belongs = |header: &BlockHeader| header.block_no >= self.next && self.fits(here, header);
                if let Some(header) = found.filter(belongs) {
                    return Ok(Some((here, header)));
                }
            }
            if read < buf.len() {
                break;
            }
            at += len;
        }
        Ok(None)
    }

    fn finding(
        &mut self,
        kind: FindingKind,
        offset: u64,
        blocks: Option<(BlockNo, BlockNo)>,
        detail: String,
    ) {
        let path = self.path.to_owned();
        self.report.findings.push(Finding {
            kind,
            path,
            offset,
            blocks,
            stream: None,
            seqs: None,
            detail,
        });
    }
}
