//! Compiles the protobuf schema with protox, so that no `protoc` need be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/starling.proto");
    let schema = protox::compile(["proto/starling.proto"], ["proto"])?;
    // Contents and tokens are handed on, so they are taken as shared slices, not copied vectors.
    prost_build::Config::new().bytes(["."]).compile_fds(schema)?;
    Ok(())
}
