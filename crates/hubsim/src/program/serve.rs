//! `hubsim serve`: the Hub as a program.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, ValueEnum};
use hubsim::{Auth, Fault, Hub, Options, Redirect, Times, images::ImageSpec, text};

/// The images of a Hub that is told of none, but for the large one.
const USUAL_IMAGES: [&str; 3] =
    ["library/busybox:latest=oci-index", "library/hello:latest=docker", "prom/prometheus:latest=many-layers"];

/// The arguments of `hubsim serve`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the registry and the token service listen.
    #[arg(long, default_value = "127.0.0.1:7000")]
    addr: SocketAddr,
    /// Where the CDN listens [default: the registry's address, one port up].
    #[arg(long)]
    cdn_addr: Option<SocketAddr>,
    /// Gives the token service a port of its own.
    #[arg(long)]
    token_port_apart: bool,
    /// How the registry asks who is there.
    #[arg(long, value_enum, default_value_t = AuthName::Bearer)]
    auth: AuthName,
    /// How a blob GET reaches its bytes.
    #[arg(long, value_enum, default_value_t = RedirectName::Absolute)]
    redirect: RedirectName,
    /// Bytes a second for each connection, such as 4MB/s.
    #[arg(long, value_parser = text::parse_size)]
    rate: Option<u64>,
    /// Bytes a second for all connections together.
    #[arg(long, value_parser = text::parse_size)]
    line_rate: Option<u64>,
    /// Waited before each response, such as 80ms.
    #[arg(long, value_parser = text::parse_duration, default_value = "0")]
    latency: Duration,
    /// Manifest GETs for each account, and for each address without one.
    #[arg(long)]
    quota: Option<u32>,
    /// How long a token is good.
    #[arg(long, value_parser = text::parse_duration, default_value = "300s")]
    token_lifetime: Duration,
    /// How long a signed URL is good.
    #[arg(long, value_parser = text::parse_duration, default_value = "300s")]
    url_lifetime: Duration,
    /// Answers 404 for an unknown repository, not 401 as Hub does.
    #[arg(long)]
    unknown_is_404: bool,
    /// An image, as library/busybox:latest=KIND. Kinds: docker, oci, oci-index, docker-list, many-layers, large:SIZE,
    /// blobs:COUNTxSIZE, every-kind [default: busybox, hello, prom/prometheus and a large one].
    #[arg(long)]
    image: Vec<ImageSpec>,
    /// The size of the default library/large:latest.
    #[arg(long, value_parser = text::parse_size, default_value = "100MB")]
    large_size: u64,
    /// An account, as USER:PASSWORD.
    #[arg(long)]
    account: Vec<String>,
    /// A repository that only accounts may read.
    #[arg(long)]
    private: Vec<String>,
    /// A fault that strikes until it is cleared, such as head-refused.
    #[arg(long)]
    fault: Vec<Fault>,
}

#[derive(Clone, Copy, ValueEnum)]
enum AuthName {
    Bearer,
    Basic,
    Open,
}

#[derive(Clone, Copy, ValueEnum)]
enum RedirectName {
    Absolute,
    Relative,
    Nested,
    None,
}

/// Runs `hubsim serve` until it is interrupted.
pub(crate) async fn run(arguments: Arguments) -> Result<(), String> {
    let hub =
        Hub::try_start(options(&arguments)).await.map_err(|error| format!("{}: {error}", arguments.addr))?;
    for account in &arguments.account {
        let (user, password) = account.split_once(':').ok_or("an account is USER:PASSWORD")?;
        hub.add_account(user, password);
    }
    let large = format!("library/large:latest=large:{}", arguments.large_size);
    let usual = USUAL_IMAGES.into_iter().chain([large.as_str()]).map(str::parse);
    let usual = usual.collect::<Result<Vec<ImageSpec>, String>>()?;
    let images = if arguments.image.is_empty() { &usual } else { &arguments.image };
    for image in images {
        let pushed = image.push(&hub);
        eprintln!("hubsim: {} is {}", image.name(), pushed.manifest);
    }
    for repository in &arguments.private {
        hub.make_private(repository);
    }
    for fault in arguments.fault {
        hub.fault(fault, Times::Always);
    }
    println!(
        "hubsim listens: registry {} cdn {} token {}",
        hub.registry_url(),
        hub.cdn_url(),
        hub.token_url()
    );
    tokio::signal::ctrl_c().await.map_err(|error| format!("no signals: {error}"))
}

fn options(arguments: &Arguments) -> Options {
    let mut options = Options::default();
    let next_port = match arguments.addr.port() {
        0 => 0,
        port => port.wrapping_add(1),
    };
    options.addr = arguments.addr;
    options.cdn_addr = arguments.cdn_addr.unwrap_or_else(|| (arguments.addr.ip(), next_port).into());
    options.token_port_apart = arguments.token_port_apart;
    options.auth = match arguments.auth {
        AuthName::Bearer => Auth::Bearer,
        AuthName::Basic => Auth::Basic,
        AuthName::Open => Auth::Open,
    };
    options.redirect = match arguments.redirect {
        RedirectName::Absolute => Redirect::Absolute,
        RedirectName::Relative => Redirect::Relative,
        RedirectName::Nested => Redirect::Nested,
        RedirectName::None => Redirect::None,
    };
    options.rate = arguments.rate;
    options.line_rate = arguments.line_rate;
    options.latency = arguments.latency;
    options.quota = arguments.quota;
    options.token.lifetime = arguments.token_lifetime;
    options.url_lifetime = arguments.url_lifetime;
    options.unknown_is_404 = arguments.unknown_is_404;
    options
}
