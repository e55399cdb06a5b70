//! How far a log of RocksDB is written: behind its end is room for more, which reads as zeros.

use std::{fs, io, path::Path};

const BLOCK_BYTES: usize = 32 * 1_024;
/// Checksum u32, length u16, type u8.
const HEADER_BYTES: usize = 7;

/// Behind the last record of a log that was not damaged.
pub fn end(path: &Path) -> io::Result<u64> {
    let log = fs::read(path)?;
    let mut at = 0;
    loop {
        let left = BLOCK_BYTES - at % BLOCK_BYTES;
        if left < HEADER_BYTES {
            at += left;
        }
        match log.get(at..at + HEADER_BYTES) {
            Some([_, _, _, _, low, high, kind]) if *kind != 0 => {
                at += HEADER_BYTES + usize::from(u16::from_le_bytes([*low, *high]));
            }
            _ => return Ok(at.min(log.len()) as u64),
        }
    }
}
