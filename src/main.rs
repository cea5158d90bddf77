//! The `cartwright` binary: parse, run, exit code.

mod allocator;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    cartwright::cli::run(std::env::args_os())
}
