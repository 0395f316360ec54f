//! Every limit of the format and the protocol, in one place. A length from outside is checked against one of
//! these before anything is allocated for it.

/// A writer closes a frame when its uncompressed payload reaches this many bytes.
pub const FRAME_TARGET_BYTES: usize = 256 * 1024;

/// Largest encoded frame, header included. Leaves room for one Kubernetes object of the largest size (1.5 MiB).
pub const FRAME_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Largest uncompressed payload of a frame.
pub const FRAME_MAX_RAW_BYTES: usize = 4 * 1024 * 1024;

/// Largest frame header, length prefix not included.
pub const FRAME_HEADER_MAX_BYTES: usize = 512;

/// Most records in one frame.
pub const FRAME_MAX_RECORDS: u32 = 65_536;

/// Largest encoded record.
pub const RECORD_MAX_BYTES: usize = FRAME_MAX_BYTES - FRAME_HEADER_MAX_BYTES - 64;

/// Longest key of a record, bytes.
pub const RECORD_KEY_MAX_BYTES: usize = 1024;

/// Longest scope (node name), bytes: a DNS subdomain.
pub const SCOPE_MAX_BYTES: usize = 253;

/// Largest block of the physical log, header included.
pub const BLOCK_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A part of a snapshot is closed when its entries reach this many bytes before compression.
pub const SNAPSHOT_PART_BYTES: usize = 1024 * 1024;

/// Largest part of a snapshot before compression: one entry over the target is let in.
pub const SNAPSHOT_PART_MAX_BYTES: usize = SNAPSHOT_PART_BYTES + 2 * 1024 * 1024;

/// Largest encoded part of a snapshot: its entries after compression, which may grow a little, and its header.
pub const SNAPSHOT_PART_WIRE_MAX_BYTES: usize = SNAPSHOT_PART_MAX_BYTES + 64 * 1024;

/// Most parts of one snapshot on a link.
pub const SNAPSHOT_MAX_PARTS: u32 = 4096;

/// Most bytes of one snapshot on a link, before compression. Its parts wait in memory for the last one.
pub const SNAPSHOT_MAX_BYTES: usize = 128 * 1024 * 1024;

/// Most bytes of one hint, before compression: the receiver keeps it in memory until the history has caught up.
pub const HINT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Largest message on the control stream.
pub const CONTROL_MAX_BYTES: usize = 64 * 1024;

/// Most streams named in one HELLO or WELCOME.
pub const SESSION_MAX_STREAMS: usize = 64;

/// Most disks of a node that are remembered after another one took their place.
pub const FENCE_MAX_CLOSED: usize = 64;

/// Most session tokens of a node that wait for one to be confirmed.
pub const FENCE_MAX_OUTSTANDING: usize = 16;

/// Most marks of a stream named in WELCOME for the edge to find the last record both ends hold.
pub const SESSION_MAX_CANDIDATES: usize = 256;

/// Highest restore generation of a refused node that is remembered: no clock gives one beyond the year 4000, and numbers
/// above it stay free.
pub const FENCE_MAX_SHOWN_GENERATION: u64 = 64_000_000_000;

/// Most requests for lost frames that may be open at once.
pub const SESSION_MAX_FETCHES: usize = 64;

/// Longest reason or message of a REFUSE or NACK that is kept, bytes.
pub const SESSION_MAX_TEXT_BYTES: usize = 4096;

/// Most labels a node may report.
pub const NODE_MAX_LABELS: usize = 128;

/// Heartbeat interval the cloud proposes while there is something to tell, milliseconds. A link is half-open after
/// two missed ones.
pub const HEARTBEAT_MS: u64 = 5_000;

/// Longest heartbeat interval the cloud proposes while there is nothing to tell, milliseconds: most middleboxes forget
/// a silent UDP flow after 30 seconds (RFC 9000, section 10.1.2).
pub const HEARTBEAT_IDLE_MS: u64 = 25_000;

/// Shortest and longest heartbeat either end accepts, milliseconds.
pub const HEARTBEAT_RANGE_MS: std::ops::RangeInclusive<u64> = 50..=240_000;
