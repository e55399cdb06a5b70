//! Payloads: incompressible, different in every message, and checkable to the last byte by
//! whoever knows the run and the pair.

/// The sequence and a word that hides it must fit.
pub const MIN_PAYLOAD_BYTES: usize = 16;

/// The payloads of one pair in one run.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    seed: u64,
}

impl Contents {
    pub fn new(run: u64, pair: usize) -> Contents {
        Contents { seed: mix(run ^ mix(pair as u64 + 1)) }
    }

    /// Appends the payload of message `sequence`; `bytes` is at least [`MIN_PAYLOAD_BYTES`].
    pub fn append(self, sequence: u64, bytes: usize, out: &mut Vec<u8>) {
        let hidden = self.word(sequence, 0);
        out.extend_from_slice(&hidden.to_le_bytes());
        out.extend_from_slice(&(sequence ^ mix(hidden)).to_le_bytes());
        let mut left = bytes - MIN_PAYLOAD_BYTES;
        let mut index = 1;
        while left > 0 {
            let word = self.word(sequence, index).to_le_bytes();
            let part = left.min(word.len());
            out.extend_from_slice(&word[..part]);
            left -= part;
            index += 1;
        }
    }

    /// The sequence of a payload; `None` if not every byte is what was sent.
    pub fn sequence_of(self, payload: &[u8]) -> Option<u64> {
        let (hidden, rest) = payload.split_first_chunk()?;
        let (masked, rest) = rest.split_first_chunk()?;
        let hidden = u64::from_le_bytes(*hidden);
        let sequence = u64::from_le_bytes(*masked) ^ mix(hidden);
        let intact = hidden == self.word(sequence, 0)
            && rest.chunks(8).zip(1..).all(|(part, index)| {
                *part == self.word(sequence, index).to_le_bytes()[..part.len()]
            });
        intact.then_some(sequence)
    }

    /// A number that names message `sequence` and is the same whenever it is asked for.
    pub fn nonce(self, sequence: u64) -> u64 {
        self.word(sequence, u64::MAX)
    }

    fn word(self, sequence: u64, index: u64) -> u64 {
        mix(self.seed ^ mix(sequence).wrapping_add(index))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_sequence_and_any_changed_bit() {
        let contents = Contents::new(7, 3);
        for bytes in [16, 17, 23, 24, 128] {
            let mut payload = Vec::new();
            contents.append(99, bytes, &mut payload);
            assert_eq!(payload.len(), bytes);
            assert_eq!(contents.sequence_of(&payload), Some(99));
            assert_eq!(Contents::new(7, 4).sequence_of(&payload), None);
            for index in 0..bytes {
                payload[index] ^= 0x10;
                assert_eq!(contents.sequence_of(&payload), None, "byte {index}");
                payload[index] ^= 0x10;
            }
        }
        assert_eq!(contents.sequence_of(&[0; 15]), None);
    }
}
