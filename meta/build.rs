//! Compiles the service's messages, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/metadata.proto"], ["proto"])?;
    // A codec of our own, because it counts what a frame holds before it decodes it.
    tonic_prost_build::configure().codec_path("crate::wire::codec::FrameCodec").compile_fds(files)?;
    Ok(())
}
