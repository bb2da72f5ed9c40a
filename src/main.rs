//! The `tund` program: everything is in the library, so that the lab can embed it.

fn main() -> std::process::ExitCode {
    tund::cli::main()
}
