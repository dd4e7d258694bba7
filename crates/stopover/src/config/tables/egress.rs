//! `[egresses.NAME]`: a way out, and which of them a registry is reached by.

use std::net::IpAddr;

use super::{
    super::{
        field::{Field, LaneField},
        keys::{Key, table_key},
        lane::{Egress, Way},
        mistake::{Mistake, Place, nearest},
        used::{Secret, Upstream},
    },
    DEFAULT, Entry, RESERVED, Table, check_names,
};

const SECTION: &str = "egresses";

/// A way out, as written.
#[derive(Clone, Default)]
pub(in super::super) struct EgressTable {
    address: Option<IpAddr>,
    proxy: Option<Secret>,
    bandwidth: Option<u64>,
}

static KEYS: &[Key<EgressTable>] = &[
    table_key(
        SECTION,
        "address",
        Field::Lane(LaneField::Address(|t| &mut t.address)),
        "The address of this machine that connections come from; no proxy is used then. An IPv4 address reaches IPv4, an IPv6 \
         address IPv6.",
    ),
    table_key(
        SECTION,
        "proxy",
        Field::Lane(LaneField::Proxy(|t| &mut t.proxy)),
        "In its place: the proxy to go through, by HTTP, HTTPS or SOCKS5, maybe with a user and a password.",
    ),
    table_key(
        SECTION,
        "bandwidth",
        Field::Lane(LaneField::Rate(|t| &mut t.bandwidth)),
        "How many bytes a second (not bits) content may come at through it, all transfers together.",
    ),
];

impl Table for EgressTable {
    const SECTION: &'static str = SECTION;
    const EXAMPLE: &'static str = "office";
    const DOC: &'static str = "A table for each way out to the registries: an address of this machine, or a proxy. NAME is what \
         logs, metrics, `stopover quota` and `upstream.egresses` call it. Where there are such tables, every registry is reached \
         by all of them unless its `egresses` says otherwise. `[egresses.default]`, with `bandwidth` alone, limits the \
         system's own way. docs/quota.md says what they are for.";

    fn keys() -> &'static [Key<Self>] {
        KEYS
    }
}

/// Returns the ways out that tables say.
pub(in super::super) fn all(entries: &[Entry<EgressTable>], mistakes: &mut Vec<Mistake>) -> Vec<Egress> {
    let taken: Vec<&str> = RESERVED.into_iter().filter(|name| *name != DEFAULT).collect();
    check_names(entries, &taken, mistakes);
    let mut egresses = Vec::new();
    for entry in entries {
        let Some(EgressTable { address, proxy, bandwidth }) = entry.value(mistakes) else { continue };
        let name = entry.name.clone();
        let way = match (name == DEFAULT, address, proxy) {
            (true, None, None) => Way::System,
            (false, Some(address), None) => Way::From(address),
            (false, None, Some(proxy)) => Way::Proxy(proxy),
            (true, ..) => {
                let what = "it is the system's own way; expected bandwidth alone, or another name";
                mistakes.push(entry.mistake("", what));
                continue;
            }
            (false, Some(_), Some(_)) => {
                mistakes.push(entry.mistake("proxy", "found beside address, expected one of them"));
                continue;
            }
            (false, None, None) => {
                mistakes.push(entry.mistake("", "expected address or proxy to be set"));
                continue;
            }
        };
        egresses.push(Egress { name, way, bandwidth });
    }
    egresses
}

/// Puts the ways out that have tables in the place of their names in a registry's list, which stands at `place`; all of
/// them where there is no list.
pub(in super::super) fn resolve(
    upstream: &mut Upstream,
    tables: &[Egress],
    place: Option<Place>,
    mistakes: &mut Vec<Mistake>,
) {
    let Some(place) = place.filter(|_| !upstream.egresses.is_empty()) else {
        *upstream = std::mem::take(upstream).reached_by(tables);
        return;
    };
    let mut wrong =
        |what: String| mistakes.push(Mistake::new(place.clone(), format!("upstream.egresses: {what}")));
    let names = || tables.iter().map(|table| &*table.name).chain([DEFAULT]);
    for egress in &mut upstream.egresses {
        if let Some(table) = tables.iter().find(|table| table.name == egress.name) {
            *egress = table.clone();
        } else if egress.way == Way::System && egress.name != DEFAULT {
            let hint = match nearest(&egress.name, names()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!(
                    "expected one of {}, an IP address or a proxy's URL",
                    names().collect::<Vec<_>>().join(", ")
                ),
            };
            wrong(format!("there is no table [egresses.{}]; {hint}", egress.name));
        }
    }
    for (at, egress) in upstream.egresses.iter().enumerate() {
        if upstream.egresses[..at].iter().any(|other| other.name == egress.name) {
            wrong(format!("{:?} stands here twice", egress.name));
        }
    }
}

impl From<&Egress> for EgressTable {
    fn from(egress: &Egress) -> Self {
        let (address, proxy) = match &egress.way {
            Way::System => (None, None),
            Way::From(address) => (Some(*address), None),
            Way::Proxy(url) => (None, Some(url.clone())),
        };
        Self { address, proxy, bandwidth: egress.bandwidth }
    }
}
