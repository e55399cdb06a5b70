//! Ids of messages. On one shard they never repeat and never go back, whatever the clock does.

use starling_codec::MessageId;

/// Makes the ids of one shard.
#[derive(Debug)]
pub(crate) struct Snowflake {
    maker: u16,
    /// Of the last id made: the time it carries, and its counter.
    last_ms: u64,
    counter: u16,
}

impl Snowflake {
    /// Makes ids above every id that carries `floor_ms` (Unix) or less.
    pub(crate) fn new(maker: u16, floor_ms: u64) -> Snowflake {
        let last_ms = floor_ms.max(MessageId::TIME_ZERO_MS);
        Snowflake { maker, last_ms, counter: MessageId::COUNTER_MAX }
    }

    /// The next id. While the clock is behind the last id, its time stands still; when a
    /// millisecond is used up, the next one is borrowed.
    pub(crate) fn next(&mut self, unix_ms: u64) -> MessageId {
        if unix_ms > self.last_ms {
            (self.last_ms, self.counter) = (unix_ms, 0);
        } else if self.counter < MessageId::COUNTER_MAX {
            self.counter += 1;
        } else {
            (self.last_ms, self.counter) = (self.last_ms + 1, 0);
        }
        MessageId::new(self.last_ms, self.maker, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START_MS: u64 = MessageId::TIME_ZERO_MS + 1_000_000;

    #[test]
    fn a_used_up_millisecond_borrows_the_next() {
        let mut ids = Snowflake::new(3, 0);
        let made: Vec<MessageId> = (0..3_000).map(|_| ids.next(START_MS)).collect();
        assert!(made.is_sorted_by(|one, next| one < next));
        assert_eq!(made[0].time_ms(), START_MS);
        assert_eq!(made[1_023].time_ms(), START_MS);
        assert_eq!(made[1_024].time_ms(), START_MS + 1);
        assert_eq!(made[2_999].time_ms(), START_MS + 2);
        assert_eq!(made[2_999].maker(), 3);
    }

    #[test]
    fn a_clock_that_steps_back_stops_time_but_not_ids() {
        let mut ids = Snowflake::new(0, 0);
        let before = ids.next(START_MS);
        let after = ids.next(START_MS - 60_000);
        assert!(after > before);
        assert_eq!(after.time_ms(), START_MS);
        assert_eq!(ids.next(START_MS + 5).time_ms(), START_MS + 5);
    }

    #[test]
    fn a_restart_makes_ids_above_the_floor() {
        let mut old = Snowflake::new(0, 0);
        let highest = (0..5_000).map(|_| old.next(START_MS)).last().unwrap();
        let mut new = Snowflake::new(0, highest.time_ms());
        assert!(new.next(START_MS - 1_000) > highest);
    }

    #[test]
    fn a_clock_before_the_start_of_snowflake_time_makes_ids_all_the_same() {
        let mut ids = Snowflake::new(0, 0);
        let (one, next) = (ids.next(0), ids.next(0));
        assert!(one < next && one.time_ms() > MessageId::TIME_ZERO_MS);
    }

    /// Two minutes of a shard that makes 700 ids a millisecond, and whose clock steps back by a
    /// minute and forth again every 2^24 ids: all three ways to the next id, over and over.
    #[test]
    fn a_hundred_million_ids_rise() {
        let mut ids = Snowflake::new(255, 0);
        let mut last = MessageId(0);
        for index in 0..100_000_000_u64 {
            let stepped_back_ms = (index >> 24 & 1) * 60_000;
            let id = ids.next(START_MS + index / 700 - stepped_back_ms);
            assert!(id > last, "{index}: {id:?} after {last:?}");
            last = id;
        }
    }

    proptest! {
        #[test]
        fn ids_rise_whatever_the_clock_does(
            clock in proptest::collection::vec(0u64..50, 1..5_000),
            restart_at in 0usize..5_000,
        ) {
            let mut ids = Snowflake::new(1, 0);
            let mut last = MessageId(0);
            for (index, ms) in clock.into_iter().enumerate() {
                if index == restart_at {
                    ids = Snowflake::new(1, last.time_ms());
                }
                let id = ids.next(START_MS + ms);
                prop_assert!(id > last);
                last = id;
            }
        }
    }
}
