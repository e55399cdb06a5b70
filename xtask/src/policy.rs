//! What may be built in: licences, sources and bans, as deny.toml says. cargo-deny reads the
//! same file; this takes seconds and needs nothing installed. Vulnerabilities are cargo-deny's:
//! `cargo deny check advisories`.

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, Package};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};
use std::path::Path;

/// The parts of deny.toml that are checked here.
#[derive(Debug, Deserialize)]
pub struct Policy {
    pub graph: Graph,
    pub licenses: Licenses,
    pub bans: Bans,
    pub sources: Sources,
}

#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Target triples that are built for.
    pub targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Licenses {
    /// SPDX names.
    pub allow: Vec<String>,
    #[serde(default)]
    pub exceptions: Vec<Exception>,
}

/// What one package may have beside.
#[derive(Debug, Deserialize)]
pub struct Exception {
    pub name: String,
    pub allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Bans {
    pub deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
pub struct Ban {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Deserialize)]
pub struct Sources {
    #[serde(rename = "allow-registry")]
    pub registries: Vec<String>,
}

impl Policy {
    pub fn read(path: &Path) -> Result<Policy> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// A line for everything built in that the policy does not allow.
    pub fn complaints(&self, metadata: &Metadata) -> Result<Vec<String>> {
        let used = |package: &&Package| {
            // What the resolver dropped for the named platforms is not built in.
            let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
            nodes.into_iter().any(|node| node.id == package.id)
        };
        let mut complaints = Vec::new();
        for package in metadata.packages.iter().filter(used) {
            let name = format!("{} {}", package.name, package.version);
            let allowed = self.licensees(&package.name)?;
            if !licence_is_allowed(package.license.as_deref(), &allowed) {
                let licence = package.license.as_deref().unwrap_or("no licence");
                complaints.push(format!("{name}: {licence} is not among the licences allowed"));
            }
            let source = package.source.as_ref().map(|source| source.repr.as_str());
            if !self.source_is_allowed(source) {
                let source = source.unwrap_or_default();
                complaints.push(format!("{name}: comes from {source}"));
            }
            if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == package.name.as_str()) {
                complaints.push(format!("{name}: banned, {}", ban.reason));
            }
        }
        Ok(complaints)
    }

    fn licensees(&self, package: &str) -> Result<Vec<Licensee>> {
        let parse = |name: &String| Licensee::parse(name).with_context(|| name.clone());
        let exceptions = self.licenses.exceptions.iter().filter(|other| other.name == package);
        let besides = exceptions.flat_map(|exception| &exception.allow);
        self.licenses.allow.iter().chain(besides).map(parse).collect()
    }

    /// `None` is a path: the workspace itself.
    fn source_is_allowed(&self, source: Option<&str>) -> bool {
        let Some(source) = source else { return true };
        let registry = source.strip_prefix("registry+");
        registry.is_some_and(|url| self.sources.registries.iter().any(|allowed| allowed == url))
    }
}

/// An expression of "OR" needs one that is allowed, of "AND" all.
fn licence_is_allowed(expression: Option<&str>, allowed: &[Licensee]) -> bool {
    // Some old crates write "MIT/Apache-2.0", which LAX reads as OR.
    let parsed = expression.and_then(|text| Expression::parse_mode(text, ParseMode::LAX).ok());
    let is_allowed =
        |wanted: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(wanted));
    parsed.is_some_and(|expression| expression.evaluate(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(expression: Option<&str>) -> bool {
        let allowed = [Licensee::parse("MIT").unwrap(), Licensee::parse("Apache-2.0").unwrap()];
        licence_is_allowed(expression, &allowed)
    }

    #[test]
    fn one_side_of_or_suffices_and_and_needs_both() {
        assert!(allows(Some("MIT")));
        assert!(allows(Some("GPL-3.0-only OR Apache-2.0")));
        assert!(allows(Some("MIT/Apache-2.0")));
        assert!(!allows(Some("MIT AND GPL-3.0-only")));
        assert!(!allows(Some("GPL-3.0-only")));
    }

    #[test]
    fn no_licence_is_none_allowed() {
        assert!(!allows(None));
        assert!(!allows(Some("as you like")));
    }

    #[test]
    fn only_named_registries_and_the_workspace_are_sources() {
        let policy: Policy = toml::from_str(
            "graph.targets = []\nlicenses.allow = []\nbans.deny = []\n\
             sources.allow-registry = ['https://example.org/index']",
        )
        .unwrap();
        assert!(policy.source_is_allowed(None));
        assert!(policy.source_is_allowed(Some("registry+https://example.org/index")));
        assert!(!policy.source_is_allowed(Some("registry+https://example.com/index")));
        assert!(!policy.source_is_allowed(Some("git+https://example.org/index")));
    }
}
