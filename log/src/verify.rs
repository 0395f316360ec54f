//! Reading everything and believing nothing: every checksum, every chain, every sequence number.

mod frames;
mod segment;

use std::path::{Path, PathBuf};

use ledge_proto::ids::{Mark, Seq, StreamKey};

use self::frames::Tails;
use self::segment::SegmentCheck;
use crate::error::OpenError;
use crate::format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{BlockChain, BlockNo, SegmentNo};
use crate::scan::read_superblock;
use crate::storage::{Access, Storage};

/// What is wrong, by what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The end was being written when the log stopped. Nothing acknowledged is affected; the next opening for
    /// writing removes it.
    TornTail,
    /// Bytes that were durable are not what was written.
    Corruption,
    /// Whole and with a matching checksum, but not a continuation of what is before: another history.
    BrokenChain,
    /// Records or blocks between others are not there.
    Gap,
    /// A segment file between others is not there.
    MissingSegment,
    /// The log ends before what the superblock saw durable.
    LostDurable,
}

impl FindingKind {
    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            FindingKind::TornTail => "torn tail",
            FindingKind::Corruption => "corruption",
            FindingKind::BrokenChain => "broken chain",
            FindingKind::Gap => "gap",
            FindingKind::MissingSegment => "missing segment",
            FindingKind::LostDurable => "lost durable data",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// In which file.
    pub path: PathBuf,
    /// Where, bytes from its start.
    pub offset: u64,
    /// First and last block affected, when known.
    pub blocks: Option<(BlockNo, BlockNo)>,
    /// The stream affected, when it is one.
    pub stream: Option<StreamKey>,
    /// First and last sequence number affected, when known.
    pub seqs: Option<(Seq, Seq)>,
    /// In words.
    pub detail: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} at byte {}",
            self.kind.name(),
            self.path.display(),
            self.offset
        )?;
        if let Some((first, last)) = self.blocks {
            write!(f, ", block {first}")?;
            if last > first {
                write!(f, " to {last}")?;
            }
        }
        if let Some(stream) = &self.stream {
            write!(f, ", {stream}")?;
        }
        if let Some((first, last)) = self.seqs {
            write!(f, " seq {first} to {last}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// A stream as verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedStream {
    /// The stream and incarnation.
    pub key: StreamKey,
    /// First sequence number held.
    pub first_seq: Seq,
    /// End of what is held.
    pub last: Mark,
    /// Frames read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segment files read.
    pub segments: usize,
    /// Whole blocks read.
    pub blocks: u64,
    /// Whole frames read.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Whole snapshots.
    pub snapshots: u64,
    /// Bytes of whole blocks.
    pub bytes: u64,
    /// Streams, ordered by key.
    pub streams: Vec<VerifiedStream>,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is wrong but, perhaps, a torn tail.
    pub fn is_sound(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.kind == FindingKind::TornTail)
    }
}

/// Verifies the log in `dir`: every segment, block checksum, the chain of blocks, every frame's checksum and chain
/// per stream, and that sequence numbers are dense. Reads only, takes no lock; on a log that is being written,
/// the last block may show as a torn tail.
///
/// # Errors
/// When the directory or a file cannot be read, or there is no log. Damage is not an error but a finding.
pub fn verify(storage: &dyn Storage, dir: &Path) -> Result<VerifyReport, OpenError> {
    let names = storage.list(dir).map_err(OpenError::io("list", dir))?;
    let superblock = read_superblock(storage, dir, &names)?.map(|(_, superblock)| superblock);
    let witness = superblock
        .as_ref()
        .map_or(BlockNo::ZERO, |superblock| superblock.durable_block);
    let numbers: Vec<SegmentNo> = names
        .iter()
        .filter_map(|name| SegmentNo::from_file_name(name))
        .collect();
    if numbers.is_empty() && superblock.is_none() {
        return Err(OpenError::NotALog { dir: dir.to_owned() });
    }
    let mut report = VerifyReport::default();
    let headers = read_headers(storage, dir, &numbers, &mut report)?;
    let mut tails = Tails::default();
    let mut expected: Option<(BlockNo, Option<BlockChain>)> = None;
    for (n, (path, header)) in headers.iter().enumerate() {
        let (first, chain) = expected.unwrap_or((header.first_block, None));
        let before = n.checked_sub(1).and_then(|n| headers.get(n));
        let missing = before.map(|(_, before)| before.segment_no.0 + 1..header.segment_no.0);
        if first != header.first_block {
            report.findings.push(Finding {
                kind: match &missing {
                    Some(missing) if !missing.is_empty() => FindingKind::MissingSegment,
                    _ => FindingKind::Gap,
                },
                path: path.clone(),
                offset: 0,
                blocks: (first < header.first_block).then(|| (first, header.first_block.previous())),
                stream: None,
                seqs: None,
                detail: match missing {
                    Some(missing) if !missing.is_empty() => format!(
                        "segments {} to {} are not there; restore the files, or records between are lost",
                        missing.start,
                        missing.end - 1
                    ),
                    _ => format!(
                        "the segment begins with block {}, block {first} was expected",
                        header.first_block
                    ),
                },
            });
        } else if chain.is_some_and(|chain| chain != header.prev_seg_chain) {
            report.findings.push(Finding {
                kind: FindingKind::BrokenChain,
                path: path.clone(),
                offset: 0,
                blocks: Some((first, first)),
                stream: None,
                seqs: None,
                detail: "the segment does not continue the one before".to_owned(),
            });
        }
        let file = storage
            .open(path, Access::Read)
            .map_err(OpenError::io("open", path))?;
        let check = SegmentCheck {
            path,
            file: &*file,
            header,
            next: header.first_block,
            chain: Some(header.prev_seg_chain),
            successor: headers
                .get(n + 1)
                .filter(|(_, next)| next.segment_no.0 == header.segment_no.0 + 1)
                .map(|(_, next)| next.first_block),
            witness,
            report: &mut report,
            tails: &mut tails,
        };
        expected = Some(check.run()?);
    }
    let end = expected.map_or(BlockNo::ZERO, |(next, _)| next.previous());
    check_witness(
        &mut report,
        dir,
        superblock.map(|s| (s.durable_block, s.durable_chain)),
        end,
        expected,
    );
    report.snapshots = tails.snapshots;
    report.streams = tails.finish();
    Ok(report)
}

fn check_witness(
    report: &mut VerifyReport,
    dir: &Path,
    witness: Option<(BlockNo, BlockChain)>,
    end: BlockNo,
    expected: Option<(BlockNo, Option<BlockChain>)>,
) {
    let Some((block, chain)) = witness else { return };
    let mut finding = |kind, blocks, detail: String| {
        let path = dir.to_owned();
        report.findings.push(Finding {
            kind,
            path,
            offset: 0,
            blocks: Some(blocks),
            stream: None,
            seqs: None,
            detail,
        });
    };
    if end < block {
        let detail = format!("the log ends at block {end}, but block {block} was durable");
        finding(FindingKind::LostDurable, (end.next(), block), detail);
    } else if end == block
        && block > BlockNo::ZERO
        && expected.is_some_and(|(_, c)| c.is_some_and(|c| c != chain))
    {
        let detail = "the last block is not the one that was durable: its chain differs".to_owned();
        finding(FindingKind::BrokenChain, (block, block), detail);
    }
}

fn read_headers(
    storage: &dyn Storage,
    dir: &Path,
    numbers: &[SegmentNo],
    report: &mut VerifyReport,
) -> Result<Vec<(PathBuf, SegmentHeader)>, OpenError> {
    let mut headers: Vec<(PathBuf, SegmentHeader)> = Vec::new();
    for no in numbers {
        let path = dir.join(no.file_name());
        let file = storage
            .open(&path, Access::Read)
            .map_err(OpenError::io("open", &path))?;
        let mut buf = vec![0; SEGMENT_HEADER_BYTES];
        let read = file.pread(&mut buf, 0).map_err(OpenError::io("read", &path))?;
        let mut finding = |detail: String| {
            report.findings.push(Finding {
                kind: FindingKind::Corruption,
                path: path.clone(),
                offset: 0,
                blocks: None,
                stream: None,
                seqs: None,
                detail,
            });
        };
        match SegmentHeader::decode(&buf[..read]) {
            Ok(header) if header.segment_no != *no => {
                finding(format!("the file says it is segment {}", header.segment_no));
            }
            Ok(header) => {
                let len = file.len().map_err(OpenError::io("read", &path))?;
                if len < header.segment_bytes {
                    finding(format!(
                        "the file has {len} bytes where {} were written",
                        header.segment_bytes
                    ));
                }
                headers.push((path, header));
            }
            Err(err @ crate::FormatError::Version(_)) => return Err(OpenError::format(path, 0, err)),
            Err(err) => finding(err.to_string()),
        }
    }
    report.segments = numbers.len();
    Ok(headers)
}
