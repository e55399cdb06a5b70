//! Reads histories and proves, or disproves, that the delivery contract was kept.
//!
//! A history is what devices wrote, were told and hold, a line a record: docs/history.md. Several
//! files are one history. Lines of one device stand in the order in which things happened to it;
//! between devices there is no order, and no clock is believed. What is proved has names, see
//! [`Property`]; docs/delivery-contract.md says which promise rests on which.
//!
//! Knows neither server nor client: whatever can record a history can be checked.

mod checker;
pub mod command;
mod devices;
mod evidence;
mod files;
mod judge;
mod line;
mod messages;
mod openings;
mod property;
mod sends;
mod streams;
mod verdict;

pub use checker::{Checker, check_records};
pub use evidence::{Position, Violation};
pub use files::{CannotRead, check_files, check_files_with};
pub use line::{Parsed, Unreadable, parse};
pub use property::Property;
pub use verdict::Verdict;
