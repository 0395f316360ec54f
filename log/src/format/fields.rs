//! Fixed-width fields at fixed places.

/// Reads `N` bytes at `at`. Zeros beyond the end: callers check lengths first.
pub(crate) fn bytes<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    buf.get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .unwrap_or([0; N])
}

pub(crate) fn u16_at(buf: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(buf, at))
}

pub(crate) fn u32_at(buf: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(buf, at))
}

pub(crate) fn u64_at(buf: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(buf, at))
}

/// Writes `value` at `at`, which must lie inside `buf`.
pub(crate) fn put(buf: &mut [u8], at: usize, value: &[u8]) {
    buf[at..at + value.len()].copy_from_slice(value);
}

/// A name of up to 255 bytes: its length, then its bytes.
pub(crate) fn put_name(buf: &mut [u8], at: usize, name: &str) {
    let len = name.len().min(255);
    buf[at] = u8::try_from(len).unwrap_or(u8::MAX);
    put(buf, at + 1, &name.as_bytes()[..len]);
}

/// Reads what [`put_name`] wrote.
pub(crate) fn name_at(buf: &[u8], at: usize) -> Option<&str> {
    let len = usize::from(*buf.get(at)?);
    std::str::from_utf8(buf.get(at + 1..at + 1 + len)?).ok()
}
