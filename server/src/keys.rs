//! The server's secrets: made on first start, readable by its user alone, never logged.

use crate::failure::Failure;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of every key.
const KEY_BYTES: usize = 32;

const SIGNING_HEADER: &str = "\
# Keys that sign session tokens, one a line: a number from 1, a space, 64 hex digits.
# The last one signs; all verify. To rotate, add a line with a new number and restart; take the
# old line out when its last tokens have expired.
";

/// A key that signs tokens, and the number that tokens name it by.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    pub id: u32,
    pub secret: [u8; KEY_BYTES],
}

/// The keys of a file like `signing.key`, which is made if it is not there; the last one signs.
///
/// # Errors
/// The file cannot be read or made, or is not what it should be.
pub fn signing_keys(path: &Path) -> Result<Vec<SigningKey>, Failure> {
    let text = read_or_make(path, || Ok(format!("{SIGNING_HEADER}1 {}\n", hex(&random_key()?))))?;
    let mut keys: Vec<SigningKey> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| wrong(path, format!("line {}: {what}", index + 1));
        let (id, secret) =
            line.split_once(' ').ok_or_else(|| wrong("not a number, a space and a key"))?;
        let id =
            id.parse().ok().filter(|id| *id != 0).ok_or_else(|| wrong("not a number from 1"))?;
        let secret = unhex(secret.trim()).ok_or_else(|| wrong("not 64 hex digits"))?;
        if keys.iter().any(|key| key.id == id) {
            return Err(wrong("this number stands there twice"));
        }
        keys.push(SigningKey { id, secret });
    }
    if keys.is_empty() {
        return Err(wrong(path, "there is no key in it".into()));
    }
    Ok(keys)
}

/// The operator's key, made if it is not there: the bytes that an OPERATOR frame carries are the
/// text of the file without the white space around it.
///
/// # Errors
/// The file cannot be read or made, or is too short to be a secret.
pub fn operator_key(path: &Path) -> Result<Vec<u8>, Failure> {
    let text = read_or_make(path, || Ok(format!("{}\n", hex(&random_key()?))))?;
    let key = text.trim();
    if key.len() < KEY_BYTES {
        return Err(wrong(path, format!("a key has at least {KEY_BYTES} characters")));
    }
    Ok(key.as_bytes().to_vec())
}

fn read_or_make(path: &Path, make: impl Fn() -> io::Result<String>) -> Result<String, Failure> {
    let read = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make().and_then(|text| write_secret(path, &text).map(|()| text))
        }
        read => read,
    };
    read.map_err(|error| wrong(path, error.to_string()))
}

/// Nobody ever sees half a key: it is written beside, synced, and moved into place.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("key.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn random_key() -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; KEY_BYTES];
    for (byte, index) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[index..index + 2], 16).ok()?;
    }
    Some(bytes)
}

fn wrong(path: &Path, what: String) -> Failure {
    Failure::Key { path: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_once_and_only_their_owner_may_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let (signing, operator) =
            (folder.path().join("signing.key"), folder.path().join("operator.key"));
        let made = signing_keys(&signing).unwrap();
        assert_eq!(made.len(), 1);
        assert!(made == signing_keys(&signing).unwrap());
        let key = operator_key(&operator).unwrap();
        assert_eq!(key.len(), 64);
        assert_eq!(key, operator_key(&operator).unwrap());
        for path in [signing, operator] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn several_keys_make_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        std::fs::write(&path, format!("# old\n1 {}\n\n7 {}\n", "ab".repeat(32), "0c".repeat(32)))
            .unwrap();
        let keys = signing_keys(&path).unwrap();
        assert_eq!((keys[0].id, keys[0].secret), (1, [0xAB; 32]));
        assert_eq!((keys[1].id, keys[1].secret), (7, [0x0C; 32]));
    }

    #[test]
    fn a_broken_file_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        for text in ["", "1", "0 ab", "1 ab", "4294967296 ab", "x y"] {
            std::fs::write(&path, text).unwrap();
            assert!(signing_keys(&path).is_err(), "{text:?}");
        }
        let key = "ab".repeat(32);
        std::fs::write(&path, format!("1 {key}\n1 {key}\n")).unwrap();
        let refused = signing_keys(&path).err().unwrap().to_string();
        assert!(refused.contains("line 2"), "{refused}");
        assert!(!refused.contains(&key), "a key in an error: {refused}");
    }
}
