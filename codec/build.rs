//! Compiles the protobuf schema with protox, so that no `protoc` need be installed.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/starling.proto");
    let schema = protox::compile(["proto/starling.proto"], ["proto"])?;
    // For the conformance tests, which read bodies by the schema alone.
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("schema.bin"), schema.encode_to_vec())?;
    // Contents and tokens are handed on, so they are taken as shared slices, not copied vectors.
    prost_build::Config::new().bytes(["."]).compile_fds(schema)?;
    Ok(())
}
