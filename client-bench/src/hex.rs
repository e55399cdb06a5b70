//! Bytes as text.

/// Two lower-case digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// `None`: not whole bytes in hex digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_and_back() {
        assert_eq!(super::decode(&super::encode(&[0, 9, 171, 255])), Some(vec![0, 9, 171, 255]));
        assert_eq!(super::decode("abc"), None);
        assert_eq!(super::decode("0g"), None);
    }
}
