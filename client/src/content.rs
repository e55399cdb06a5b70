//! Contents of messages: opaque to the server, read by people.

use bytes::Bytes;
use prost::Message;
use starling_codec::wire::{Content, Text, content::Kind};

/// A content, encoded as a message carries it.
pub fn content_of(text: &str) -> Bytes {
    let text = Text { text: text.to_owned() };
    Content { kind: Some(Kind::Text(text)), ..Content::default() }.encode_to_vec().into()
}

/// The text of an encoded content; `None` for any other kind, and for what cannot be read.
pub fn text_of(content: &[u8]) -> Option<String> {
    match Content::decode(content).ok()?.kind? {
        Kind::Text(text) => Some(text.text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_and_anything_else_is_none() {
        assert_eq!(text_of(&content_of("hej 👋")).as_deref(), Some("hej 👋"));
        assert_eq!(text_of(&Content::default().encode_to_vec()), None);
        assert_eq!(text_of(&[0xFF]), None);
    }
}
