//! Names to addresses, by the system's resolver.
//!
//! At most one lookup per name is under way; an answer is used for a few seconds, so that a burst of connections is
//! one lookup; and where the resolver fails, the last good answer serves on for an hour, since registries rarely move
//! and name servers often fail.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use crate::flight::Flights;

const FRESH: Duration = Duration::from_secs(10);
const LAST_GOOD: Duration = Duration::from_secs(3600);
/// How long the system's resolver may take.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How many names are remembered; past it all are forgotten, which costs lookups.
const NAMES_MAX: usize = 1000;

type Found = Result<Arc<[IpAddr]>, String>;

#[derive(Default)]
pub(super) struct Names {
    known: Arc<Mutex<HashMap<String, Known>>>,
    flights: Arc<Flights<String, Found>>,
}

#[derive(Clone)]
struct Known {
    addresses: Arc<[IpAddr]>,
    at: Instant,
}

impl Names {
    /// Returns the addresses of a host, in the resolver's order; an address stands for itself.
    pub(super) async fn lookup(&self, host: &str) -> Found {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Arc::from([address]));
        }
        let name = bare.to_ascii_lowercase();
        if let Some(known) = recall(&self.known, &name, FRESH) {
            return Ok(known);
        }
        let known = Arc::clone(&self.known);
        let flight = self.flights.run(name.clone(), || async move { look_up(&known, name).await });
        flight.await.map_or_else(|| Err("the lookup broke".to_owned()), |landed| landed.value)
    }
}

async fn look_up(known: &Mutex<HashMap<String, Known>>, name: String) -> Found {
    if let Some(addresses) = recall(known, &name, FRESH) {
        return Ok(addresses);
    }
    let found = match timeout(LOOKUP_MAX, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect::<Vec<_>>()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the resolver does not answer".to_owned()),
    };
    match found {
        Ok(addresses) if !addresses.is_empty() => {
            let addresses: Arc<[IpAddr]> = addresses.into();
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= NAMES_MAX {
                known.clear();
            }
            known.insert(name, Known { addresses: Arc::clone(&addresses), at: Instant::now() });
            Ok(addresses)
        }
        Ok(_) => recall(known, &name, LAST_GOOD).ok_or_else(|| "it has no address".to_owned()),
        Err(cause) => recall(known, &name, LAST_GOOD).ok_or(cause),
    }
}

fn recall(known: &Mutex<HashMap<String, Known>>, name: &str, age_max: Duration) -> Option<Arc<[IpAddr]>> {
    let known = known.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = known.get(name).filter(|entry| entry.at.elapsed() < age_max)?;
    Some(Arc::clone(&entry.addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_stands_for_itself() {
        let names = Names::default();
        assert_eq!(*names.lookup("127.0.0.1").await.expect("an address"), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(
            *names.lookup("[::1]").await.expect("an address"),
            ["::1".parse::<IpAddr>().expect("one")]
        );
    }

    #[tokio::test]
    async fn the_last_good_answer_serves_on_when_the_resolver_fails() {
        let names = Names::default();
        let addresses: Arc<[IpAddr]> = Arc::from([IpAddr::from([192, 0, 2, 1])]);
        let at = Instant::now().checked_sub(FRESH * 2).expect("the machine did not start just now");
        let name = "registry.invalid".to_owned();
        names.known.lock().expect("no panic").insert(name, Known { addresses: Arc::clone(&addresses), at });
        assert_eq!(names.lookup("Registry.invalid").await, Ok(addresses));
        assert!(names.lookup("other.invalid").await.is_err());
    }
}
