//! Protobuf's variable-length numbers, read without allocating.

/// Appends `value`, seven bits a byte, the lowest first.
pub fn append(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front; `None` if there is none that fits 64 bits.
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Bytes of `value` as a number of variable length.
pub fn size(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_the_size_that_is_said() {
        for value in (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            append(&mut bytes, value);
            assert_eq!(bytes.len(), size(value));
            assert_eq!(take(&mut bytes.as_slice()), Some(value));
        }
    }
}
