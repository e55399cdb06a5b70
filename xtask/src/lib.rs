//! Chores, and what must stay true of the repository as a whole. The tests in `tests/` hold the
//! workspace against these modules; the command `cargo xtask` makes what is made by machine.
//!
//! Nothing depends on this crate, so it may know all others.

pub mod direction;
pub mod manual;
pub mod map;
pub mod policy;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};
use std::path::Path;

/// The root of the checkout.
pub fn root() -> &'static Path {
    // This crate lies directly in the root, so there is a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root")
}

/// What cargo knows of the workspace and all it is built from, on the platforms named; none
/// means all. Changes nothing in the lock file.
pub fn metadata(platforms: &[String]) -> Result<Metadata> {
    let mut options = vec!["--locked".to_owned()];
    options.extend(platforms.iter().flat_map(|name| ["--filter-platform".into(), name.clone()]));
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options)
        .exec()
        .context("cargo metadata")
}
