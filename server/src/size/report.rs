//! A size, for people and for machines.

use super::{BUSY, ENVELOPE_BYTES, MEMORY_HEADROOM, Size, SizeArguments, measured as m};
use std::fmt::Write;

/// The rows of the table in tuning/README.md: connections and messages a second.
const TABLE: [(u32, u32); 6] = [
    (1_000, 100),
    (10_000, 500),
    (100_000, 2_000),
    (1_000_000, 10_000),
    (1_000_000, 50_000),
    (2_400_000, 25_000),
];

impl SizeArguments {
    /// What the command prints.
    pub fn print(&self) -> String {
        if self.evidence {
            return evidence();
        }
        let size = self.calculate();
        if self.json {
            // Numbers and a name: nothing in it can fail to be JSON.
            return serde_json::to_string(&size).expect("a plain struct") + "\n";
        }
        text(&size)
    }
}

fn text(size: &Size) -> String {
    let mut text = format!(
        "For {} connections with a heartbeat every {} s, and {} messages a second of {} B:\n\n",
        grouped(size.connections.into()),
        size.heartbeat_s,
        grouped(size.messages_per_second.into()),
        size.payload_bytes
    );
    let mut line = |label: &str, value: &str, why: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", format!("{label:<18}{value:>10}  {why}").trim_end());
    };
    line("memory", &bytes(size.memory_bytes), "with a quarter more, and the system's own");
    line("  kernel", &bytes(size.kernel_bytes), "sockets");
    line("  server", &bytes(size.user_bytes), "sessions");
    line("  store", &bytes(size.store_bytes), "memtables and block cache, as set by default");
    line("processors", &size.cores.to_string(), &format!("{:.2} of them busy", size.busy_cores));
    line("disk", &bytes(size.disk_bytes_per_day), "a day, if every second were the busiest");
    line("open files", &grouped(size.open_files), "at least (LimitNOFILE)");
    let back = format!("{:.0} s", size.log_in_again_s.ceil());
    line("all back within", &back, "after a restart, at best: as long as log-ins keep it busy");
    let profile =
        size.profile.map_or("none is so large".into(), |name| format!("tuning/profiles/{name}"));
    line("profile", &profile, "");
    text.push_str("\nWhat it rests on: starling-server size --connections 1 --evidence\n");
    text
}

/// The sizing table of tuning/README.md, in Markdown.
pub fn table() -> String {
    let mut table = String::from(
        "| connections | messages/s | kernel | server | memory to have | processors | disk a day | profile |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (connections, messages_per_second) in TABLE {
        let size = SizeArguments {
            connections,
            messages_per_second,
            payload: 128,
            heartbeat_s: 30,
            json: false,
            evidence: false,
        }
        .calculate();
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            grouped(connections.into()),
            grouped(messages_per_second.into()),
            bytes(size.kernel_bytes),
            bytes(size.user_bytes),
            bytes(size.memory_bytes),
            size.cores,
            bytes(size.disk_bytes_per_day),
            size.profile.unwrap_or("none"),
        );
    }
    table
}

/// What one processor, one GiB of memory and one GiB of disk carry, in Markdown.
pub fn per_unit() -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    const HEARTBEAT_S: u64 = 30;
    const PAYLOAD_BYTES: u32 = 128;
    let half_us = BUSY * 1e6;
    let beats_per_s = half_us / m::CPU_US_PER_HEARTBEAT.value;
    let connection_bytes =
        m::KERNEL_BYTES_PER_CONNECTION.value + m::USER_BYTES_PER_CONNECTION.value;
    let message_bytes = m::DISK_RATIO.value * f64::from(PAYLOAD_BYTES + ENVELOPE_BYTES);
    let count = |value: f64| grouped(value as u64);
    format!(
        "| one | carries |\n|---|---|\n\
         | processor, half of it busy | {} messages a second, or {} connections with a heartbeat \
         every {HEARTBEAT_S} s |\n\
         | GiB of memory, a quarter to spare | {} connections |\n\
         | GiB of disk | {} messages of {PAYLOAD_BYTES} B |\n",
        count(half_us / m::CPU_US_PER_MESSAGE.value),
        count(beats_per_s * HEARTBEAT_S as f64),
        count(GIB / (connection_bytes * MEMORY_HEADROOM)),
        count(GIB / message_bytes),
    )
}

fn evidence() -> String {
    let mut text = String::new();
    for figure in m::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:>12}  {}\n{:>12}  {}, {}",
            grouped_or_small(figure.value),
            figure.what,
            "",
            figure.date,
            figure.how
        );
    }
    text
}

fn grouped_or_small(value: f64) -> String {
    if value < 100.0 { value.to_string() } else { grouped(value as u64) }
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1_024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1_024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(6 << 30), "6.0 GiB");
    }

    #[test]
    fn every_measurement_says_when_and_how() {
        for figure in m::ALL {
            assert!(figure.value > 0.0 && figure.date.starts_with("202"), "{figure:?}");
            assert!(evidence().contains(figure.how) && evidence().contains(figure.what));
        }
    }
}
