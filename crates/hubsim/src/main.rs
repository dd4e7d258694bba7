//! The program `hubsim`: the stand-in Hub for scripts, and two clients that measure.

mod program;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A stand-in Docker Hub for tests and measurements.
#[derive(Parser)]
#[command(name = "hubsim", version)]
struct Arguments {
    /// Worker threads.
    #[arg(long, global = true, default_value_t = 1)]
    threads: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves as Docker Hub does, and is steered by HTTP under /_hubsim/ on the registry's port.
    Serve(Box<program::serve::Arguments>),
    /// Asks for a URL again and again on open connections, throws the bodies away and prints the speed.
    Sink(program::sink::Arguments),
    /// Lets many clients pull one path at the same moment, checks what they get and prints how long each took.
    Pull(program::pull::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.threads.max(1))
        .enable_all()
        .build();
    let done = runtime.map_err(|error| format!("no runtime: {error}")).and_then(|runtime| {
        runtime.block_on(async {
            // In a task of its own: the thread that waits here would be one more worker.
            let running = tokio::spawn(run(arguments.command));
            running.await.map_err(|error| error.to_string())?
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hubsim: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Serve(arguments) => program::serve::run(*arguments).await,
        Command::Sink(arguments) => program::sink::run(arguments).await,
        Command::Pull(arguments) => program::pull::run(arguments).await,
    }
}
