//! The place in a paginated list that a request asks for.

use crate::query::encode_into;

/// The most entries a page is asked to have; some registries refuse more (ECR: "an error if n > 1000").
pub const N_MAX: u32 = 1000;

/// Which part of a list is wanted (distribution spec, "Listing tags").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// At most how many entries; 0 asks for none.
    pub n: Option<u32>,
    /// The entry after which the page starts.
    pub last: Option<String>,
}

impl Page {
    /// Returns the query string that asks for this page, without the `?`; empty where nothing is asked.
    pub fn to_query(&self) -> String {
        let mut query = String::new();
        if let Some(n) = self.n {
            query = format!("n={n}");
        }
        if let Some(last) = &self.last {
            query.push_str(if query.is_empty() { "last=" } else { "&last=" });
            encode_into(&mut query, last);
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_a_query() {
        for (n, last, query) in [
            (None, None, ""),
            (Some(0), None, "n=0"),
            (None, Some("3.20"), "last=3.20"),
            (Some(10), Some("a/b&n=1 \u{e9}%"), "n=10&last=a%2Fb%26n%3D1%20%C3%A9%25"),
        ] {
            assert_eq!(Page { n, last: last.map(str::to_owned) }.to_query(), query);
        }
    }
}
