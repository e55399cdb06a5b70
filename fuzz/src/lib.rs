//! Bytes as a script: how the targets read from libFuzzer's input what is to happen. A script that
//! is over goes on with zeros, so every input means something and a shorter one means less.

/// The numbers at which something usually happens.
const EDGES: [u64; 16] = [
    63,
    64,
    65,
    255,
    256,
    4_095,
    4_096,
    32_768,
    32_769,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    u64::MAX,
];

/// An input, read from front to back.
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub fn new(input: &'a [u8]) -> Script<'a> {
        Script { rest: input }
    }

    pub fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// One of `count` things.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.below(things.len())].clone()
    }

    /// A small number, an edge, or any: small ones come most often.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            edge @ 200..=247 => EDGES[usize::from(edge - 200) % EDGES.len()],
            _ => {
                let bytes = self.bytes(8);
                let mut number = [0; 8];
                number[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(number)
            }
        }
    }

    /// A place in something that has so many places.
    pub fn index(&mut self, count: usize) -> usize {
        let number = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        number % count.max(1)
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, at_most: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(at_most.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// A few bytes of any kind.
    pub fn some_bytes(&mut self) -> &'a [u8] {
        let count = self.below(64);
        self.bytes(count)
    }

    /// A few letters of any kind.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.some_bytes()).into_owned()
    }
}
