//! The normal form of a user's name: what makes two spellings one name. The server keeps it, and a
//! client tells by it whether a name that was typed is that of its device.

use crate::{
    ErrorCode,
    limits::{MAX_NAME_CHARS, MIN_NAME_CHARS},
};
use unicode_normalization::UnicodeNormalization;

/// NFKC of the lowercase of NFKC of `name`: 3 to 32 characters, each a letter or digit of any
/// script, or one of `.`, `_` and `-`.
///
/// # Errors
/// [`ErrorCode::NameInvalid`] for anything else.
pub fn normal_name(name: &str) -> Result<String, ErrorCode> {
    // Compatibility forms shrink at most eighteenfold: what is longer cannot become short enough,
    // and is not worth normalising.
    if name.len() > MAX_NAME_CHARS * 4 * 18 {
        return Err(ErrorCode::NameInvalid);
    }
    let folded: String = name.nfkc().flat_map(char::to_lowercase).nfkc().collect();
    let length = folded.chars().count();
    let fits = (MIN_NAME_CHARS..=MAX_NAME_CHARS).contains(&length);
    // Marks that NFKC could not compose, as many scripts need them, count as letters.
    let spelt = folded.chars().all(|c| {
        c.is_alphanumeric()
            || matches!(c, '.' | '_' | '-')
            || unicode_normalization::char::is_combining_mark(c)
    });
    let starts = folded.chars().next().is_some_and(char::is_alphanumeric);
    if fits && spelt && starts { Ok(folded) } else { Err(ErrorCode::NameInvalid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_name_are_one() {
        for spelling in ["Jürgen", "Ju\u{308}rgen", "JÜRGEN", "ｊürgen"] {
            assert_eq!(normal_name(spelling).as_deref(), Ok("jürgen"));
        }
        for name in ["ada", "李小龙", "анна_1", "a.b-c", "मीरा"] {
            assert_eq!(normal_name(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(33);
        for name in ["", "ab", &long, "a b", "ada\n", "ada\u{0}", "ada!", "ad\u{200d}a", "-ada"] {
            assert_eq!(normal_name(name), Err(ErrorCode::NameInvalid), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_name_is_its_own_normal_form(name in "\\PC{3,12}") {
            if let Ok(normal) = normal_name(&name) {
                prop_assert_eq!(normal_name(&normal), Ok(normal));
            }
        }
    }
}
