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
use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> &'static Path {
    // This crate lies directly in the root, so there is a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root")
}

/// The folders of all workspaces, each of which has a lock file of its own; the large one is the
/// root, which comes first.
pub fn workspaces() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "Cargo.lock" {
                found.push(folder.clone());
            }
            // What cargo builds, and what tools keep for themselves.
            let is_ours = name != "target" && !name.as_encoded_bytes().starts_with(b".");
            if is_ours && entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What cargo knows of the workspace and all it is built from, on the platforms named; none
/// means all. Changes nothing in the lock file.
pub fn metadata(platforms: &[String]) -> Result<Metadata> {
    metadata_of(root(), platforms)
}

/// The same of the workspace in a folder.
pub fn metadata_of(workspace: &Path, platforms: &[String]) -> Result<Metadata> {
    let mut options = vec!["--locked".to_owned()];
    options.extend(platforms.iter().flat_map(|name| ["--filter-platform".into(), name.clone()]));
    MetadataCommand::new()
        .manifest_path(workspace.join("Cargo.toml"))
        .other_options(options)
        .exec()
        .context("cargo metadata")
}
