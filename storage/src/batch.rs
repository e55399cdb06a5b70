//! The rows of one commit, in one piece of memory that is used again for the next.

use crate::Family;

/// Rows to be written as one.
#[derive(Debug, Default)]
pub struct Rows {
    /// Key and value of each row, one after the other.
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    family: Family,
    /// The first 16 bytes of the key as a number, to sort by without following a pointer.
    order: u128,
    at: u32,
    key_bytes: u16,
    value_bytes: u32,
}

impl Rows {
    /// Adds a row; `value` appends to the buffer it is given. A key may be put once only.
    pub fn put(&mut self, family: Family, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        value(&mut self.bytes);
        let mut order = [0; 16];
        let leading = key.len().min(16);
        order[..leading].copy_from_slice(&key[..leading]);
        self.rows.push(Row {
            family,
            order: u128::from_be_bytes(order),
            at: at as u32,
            key_bytes: key.len() as u16,
            value_bytes: (self.bytes.len() - at - key.len()) as u32,
        });
    }

    /// Sorts by family and key, which makes the insertions into a memtable neighbours.
    pub fn sort(&mut self) {
        self.rows.sort_unstable_by_key(|row| (row.family, row.order, row.at));
    }

    pub fn iter(&self) -> impl Iterator<Item = (Family, &[u8], &[u8])> {
        self.rows.iter().map(|row| {
            let key_at = row.at as usize;
            let value_at = key_at + usize::from(row.key_bytes);
            let end = value_at + row.value_bytes as usize;
            (row.family, &self.bytes[key_at..value_at], &self.bytes[value_at..end])
        })
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets the rows, and gives memory back that a large commit took.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 1 << 20;
        self.bytes.clear();
        self.rows.clear();
        if self.bytes.capacity() > KEEP_BYTES {
            self.bytes.shrink_to(KEEP_BYTES);
            self.rows.shrink_to(KEEP_BYTES / size_of::<Row>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_sorted_by_family_and_key() {
        let mut rows = Rows::default();
        rows.put(Family::Inbox, b"b", |value| value.extend_from_slice(b"2"));
        rows.put(Family::Inbox, b"a", |value| value.extend_from_slice(b"1"));
        rows.put(Family::Message, b"z", |_| ());
        rows.sort();
        let expected: [(Family, &[u8], &[u8]); 3] = [
            (Family::Message, b"z", b""),
            (Family::Inbox, b"a", b"1"),
            (Family::Inbox, b"b", b"2"),
        ];
        assert!(rows.iter().eq(expected));
        assert_eq!((rows.len(), rows.bytes()), (3, 5));
    }
}
