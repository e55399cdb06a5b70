//! What an engine is told when it is made, and the time it is told with every input.

use starling_codec::limits::MIN_HEARTBEAT_S;

/// The time of an input. The engine has no clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never steps back; its zero does not matter.
    pub mono_ms: u64,
    /// Unix milliseconds, which may step either way.
    pub unix_ms: u64,
}

/// How one shard's engine behaves. All values are resolved: there is nothing left to default.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shard: u16,
    pub shards: u16,
    /// Connections this shard may accept; what moves here from another shard is not counted
    /// against it, as that shard counted it when it accepted.
    pub max_connections: u32,
    /// Commands of this shard that may be without an outcome. The lanes to the store and between
    /// shards have room for the credits of all shards, so they are never full.
    pub credits: u32,
    /// Messages a device may send in a second, and at once after a quiet one; 0: no limit.
    pub sends_per_second: u32,
    /// The heartbeat this server would choose, within what a client allows.
    pub heartbeat_s: u32,
    pub token_lifetime_s: u32,
    /// No message id of this time or an earlier one is made (Unix milliseconds).
    pub id_floor_ms: u64,
    /// SHA-256 of the operator's key.
    pub operator_key_hash: [u8; 32],
    /// Conversations remembered as existing, at most; older ones are asked for again.
    pub max_known_conversations: usize,
}

impl Default for Settings {
    /// One shard, without an operator.
    fn default() -> Settings {
        Settings {
            shard: 0,
            shards: 1,
            max_connections: 1_000_000,
            credits: 8_192,
            sends_per_second: 0,
            heartbeat_s: MIN_HEARTBEAT_S.max(30),
            token_lifetime_s: 30 * 24 * 60 * 60,
            id_floor_ms: 0,
            // No key is known to have this hash.
            operator_key_hash: [0; 32],
            max_known_conversations: 65_536,
        }
    }
}
