//! The control API under `/_hubsim/`, so that scripts can steer a Hub that runs as a program.
//!
//! GET `counters` (with `?requests=1` also each request), `quota`; POST `reset`, `fault`, `clear-faults`, `release`,
//! `tag`, `untag`, `image`, `private`, `public`, `account`, `set`, `reset-quota`, `expire-tokens`, `expire-urls`,
//! `down`. Answers are JSON; a command that cannot be done is a 400 that says why.

use std::net::IpAddr;

use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{self, Answer},
    fault::{Fault, Target, Times},
    hub::Hub,
    images, quota,
    state::Exchange,
    text,
};

/// Answers a command.
pub(crate) fn answer(exchange: &Exchange, method: &Method, command: &str, query: &str) -> Answer {
    let pairs = text::pairs(query);
    let done = match *method {
        Method::GET => show(exchange, command, &pairs),
        Method::POST => change(exchange, command, &pairs),
        _ => Err(format!("no command is asked by {method}")),
    };
    match done {
        Ok(document) => answer::json(exchange, 200, &document),
        Err(why) => answer::json(exchange, 400, &json!({ "error": why })),
    }
}

fn show(exchange: &Exchange, command: &str, pairs: &[(String, String)]) -> Result<Value, String> {
    match command {
        "counters" => {
            let with_requests = text::value(pairs, "requests").is_some();
            Ok(json!(exchange.state.recorder.snapshot(with_requests)))
        }
        "quota" => Ok(quota::overview(&exchange.state.quota())),
        _ => Err(format!("nothing to show under {command:?}")),
    }
}

fn change(exchange: &Exchange, command: &str, pairs: &[(String, String)]) -> Result<Value, String> {
    let hub = Hub::borrowed(&exchange.state);
    let optional = |name| text::value(pairs, name);
    let needed = |name| optional(name).ok_or_else(|| format!("{command} needs {name}=..."));
    match command {
        "reset" => hub.reset_counters(),
        "fault" => fault(&hub, needed("name")?, pairs)?,
        "clear-faults" => hub.clear_faults(),
        "release" => hub.release(),
        "tag" => {
            let digest = needed("digest")?.parse().map_err(|error| format!("{error}"))?;
            hub.tag(needed("repo")?, needed("tag")?, &digest);
        }
        "untag" => hub.untag(needed("repo")?, needed("tag")?),
        "image" => {
            let spec: images::ImageSpec = needed("spec")?.parse()?;
            let image = spec.push(&hub);
            return Ok(json!({ "digest": image.manifest, "layers": image.layers }));
        }
        "private" => match optional("user") {
            Some(user) => hub.make_private_to(needed("repo")?, user),
            None => hub.make_private(needed("repo")?),
        },
        "public" => hub.make_public(needed("repo")?),
        "account" => hub.add_account(needed("user")?, needed("password")?),
        "set" => set(&hub, pairs)?,
        "reset-quota" => hub.reset_quota(),
        "expire-tokens" => hub.expire_tokens(),
        "expire-urls" => hub.expire_urls(),
        "down" => down(&hub, needed("for")?)?,
        _ => return Err(format!("no such command: {command:?}")),
    }
    Ok(json!({ "done": command }))
}

fn fault(hub: &Hub, name: &str, pairs: &[(String, String)]) -> Result<(), String> {
    let fault: Fault = name.parse()?;
    let times = match text::value(pairs, "times") {
        None | Some("always") => Times::Always,
        Some(times) => Times::N(times.parse().map_err(|_| format!("not a number of times: {times:?}"))?),
    };
    let method = text::value(pairs, "method").map(|name| Method::from_bytes(name.as_bytes()));
    let target = Target {
        kind: text::value(pairs, "kind").map(str::parse).transpose()?,
        reference: text::value(pairs, "reference").map(str::to_owned),
        method: method.transpose().map_err(|_| "not a method".to_owned())?,
        peer: text::value(pairs, "peer").map(address).transpose()?,
    };
    hub.fault_on(fault, times, target);
    Ok(())
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("not an address: {text:?}"))
}

fn set(hub: &Hub, pairs: &[(String, String)]) -> Result<(), String> {
    for (name, value) in pairs {
        let size = || {
            if value == "none" { Ok(None) } else { text::parse_size(value).map(Some) }
        };
        match name.as_str() {
            "rate" => {
                let rate = size()?;
                hub.configure(|options| options.rate = rate);
            }
            "line-rate" => {
                let rate = size()?;
                hub.configure(|options| options.line_rate = rate);
            }
            "latency" => {
                let latency = text::parse_duration(value)?;
                hub.configure(|options| options.latency = latency);
            }
            "quota" => {
                let quota = size()?.map(|quota| u32::try_from(quota).unwrap_or(u32::MAX));
                hub.set_quota(quota);
            }
            "token-lifetime" => {
                let lifetime = text::parse_duration(value)?;
                hub.configure(|options| options.token.lifetime = lifetime);
            }
            "url-lifetime" => {
                let lifetime = text::parse_duration(value)?;
                hub.configure(|options| options.url_lifetime = lifetime);
            }
            _ => return Err(format!("nothing to set is called {name:?}")),
        }
    }
    Ok(())
}

/// Goes down for a while. The answer to this very command may be cut with all others.
fn down(hub: &Hub, how_long: &str) -> Result<(), String> {
    let how_long = text::parse_duration(how_long)?;
    let state = hub.state();
    // The task is not the connection's, which ends; it holds the Hub weakly and ends by itself.
    tokio::spawn(async move {
        let Some(up) = state.upgrade() else { return };
        Hub::borrowed(&up).stop_listening().await;
        drop(up);
        tokio::time::sleep(how_long).await;
        if let Some(down) = state.upgrade() {
            Hub::borrowed(&down).resume_listening().await;
        }
    });
    Ok(())
}
