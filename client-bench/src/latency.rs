//! Latencies as histograms (HDR: two significant digits and more at every size), which merge
//! without loss, over processes too.

use anyhow::{Context, Result};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize, de::Error as _, ser::Error as _};

/// Longer than any run: what takes longer is recorded as this.
const MAX_NS: u64 = 3_600 * 1_000_000_000;

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// What a table and a JSON result show of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Default for Latencies {
    fn default() -> Latencies {
        // 100 ns to an hour at three digits are bounds that the library accepts.
        Latencies(Histogram::new_with_bounds(100, MAX_NS, 3).expect("valid bounds"))
    }
}

impl Latencies {
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    pub fn merge(&mut self, other: &Latencies) {
        // Both have the bounds of `default`, so every value of one fits the other.
        self.0.add(&other.0).expect("equal bounds");
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `quantile` (0 to 1) of all do not exceed, in nanoseconds.
    pub fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub fn percentiles(&self) -> Percentiles {
        let us = |ns: u64| ns as f64 / 1_000.0;
        Percentiles {
            count: self.count(),
            mean_us: self.0.mean() / 1_000.0,
            p50_us: us(self.at(0.5)),
            p90_us: us(self.at(0.9)),
            p99_us: us(self.at(0.99)),
            p999_us: us(self.at(0.999)),
            max_us: us(self.0.max()),
        }
    }

    /// For another process: HDR's V2 format, in hex.
    pub fn to_hex(&self) -> Result<String> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).context("cannot write a histogram")?;
        Ok(crate::hex::encode(&bytes))
    }

    /// # Errors
    /// Not what [`Latencies::to_hex`] made.
    pub fn from_hex(text: &str) -> Result<Latencies> {
        let bytes = crate::hex::decode(text).context("not a histogram")?;
        let histogram =
            Deserializer::new().deserialize(&mut bytes.as_slice()).context("not a histogram")?;
        Ok(Latencies(histogram))
    }
}

impl Serialize for Latencies {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_hex().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Latencies, D::Error> {
        Latencies::from_hex(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_merge_to_what_one_would_have_recorded() {
        let mut whole = Latencies::default();
        let mut merged = Latencies::default();
        for part in 0..4u64 {
            let mut latencies = Latencies::default();
            for step in 0..1_000u64 {
                let ns = (part * 1_000 + step + 1) * 3_137;
                latencies.record(ns);
                whole.record(ns);
            }
            let sent = latencies.to_hex().unwrap();
            merged.merge(&Latencies::from_hex(&sent).unwrap());
        }
        assert_eq!(merged.percentiles(), whole.percentiles());
        assert_eq!(merged.count(), 4_000);
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_kept_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(u64::MAX);
        assert!(latencies.at(1.0) >= MAX_NS);
    }
}
