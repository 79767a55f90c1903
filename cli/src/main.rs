//! The `granary` binary. Everything is in the library, so that tests can link it.

fn main() -> std::process::ExitCode {
    granary::main()
}
