//! The `Link` header of a paginated list (RFC 8288), read only for where the next page starts.
//!
//! The URL in it is never followed: the next request is made from its query alone, for tags from `n` and `last` alone,
//! so that a registry cannot send us elsewhere.

use crate::{
    Page, QUERY_BYTES_MAX,
    query::{Query, decoded, parse_n},
};

/// The most links looked at in one header.
const LINKS_MAX: usize = 16;

/// Returns the page that a `Link` header names as `rel="next"`.
///
/// A link without `last` gives none: to follow it would ask for the first page for ever.
pub fn next_page(link_header: &str) -> Option<Page> {
    page_of(next_url(link_header)?)
}

/// Returns the query that a `Link` header names as `rel="next"`, where it may stand in a URL as it is.
///
/// Which parameters lead to the next page of referrers is the registry's affair (distribution spec, "Listing
/// referrers").
pub fn next_query(link_header: &str) -> Option<&str> {
    let url = next_url(link_header)?.split('#').next()?;
    let (_, query) = url.split_once('?')?;
    let is_plain = query.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'`'));
    (is_plain && !query.is_empty() && query.len() <= QUERY_BYTES_MAX).then_some(query)
}

fn next_url(link_header: &str) -> Option<&str> {
    let mut rest = link_header;
    for _ in 0..LINKS_MAX {
        let (_, after) = rest.split_once('<')?;
        let (url, after) = after.split_once('>')?;
        let end = unquoted_comma(after);
        if is_next(&after[..end]) {
            return Some(url);
        }
        rest = &after[end..];
    }
    None
}

/// Returns where the first comma outside of quotes is, or the length.
fn unquoted_comma(text: &str) -> usize {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// Tells whether the parameters of a link, such as `; rel="next"`, hold the relation `next`.
fn is_next(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        let relations = value.trim().trim_matches('"');
        name.trim().eq_ignore_ascii_case("rel")
            && relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

fn page_of(url: &str) -> Option<Page> {
    let url = url.split('#').next()?;
    let (_, query) = url.split_once('?')?;
    let query = Query::parse(query).ok()?;
    let last = decoded(query.last).ok()??;
    Some(Page { n: query.n.and_then(parse_n), last: Some(last) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(n: Option<u32>, last: &str) -> Option<Page> {
        Some(Page { n, last: Some(last.to_owned()) })
    }

    #[test]
    fn the_next_page_is_found_however_the_link_is_written() {
        let table = [
            (r#"</v2/a/tags/list?last=b&n=10>; rel="next""#, page(Some(10), "b")),
            (r#"<https://r.io/v2/a/tags/list?n=10&last=b%2Fc>; rel="next""#, page(Some(10), "b/c")),
            (r#"<?last=b>;rel=next"#, page(None, "b")),
            (r#"</x?last=b#top>; title="a, \"b\"; c"; REL="last NEXT""#, page(None, "b")),
            (r#"</x?last=a>; rel="prev", </x?last=b,c>; rel="next""#, page(None, "b,c")),
            (r#"</x?last=b&n=999999999999>; rel="next""#, page(Some(crate::N_MAX), "b")),
            (r#"</x?last=b&n=-1>; rel="next""#, page(None, "b")),
        ];
        for (header, wanted) in table {
            assert_eq!(next_page(header), wanted, "{header}");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_new_gives_no_page() {
        for header in [
            "",
            "</x?last=b>",
            r#"</x?last=b>; rel="prev""#,
            r#"</x?n=10>; rel="next""#,
            r#"</x?n=10&last=>; rel="next""#,
            r#"</x?next_page=token>; rel="next""#,
            r#"</x?last=a&last=b>; rel="next""#,
            r#"</x?last=%0d%0aEvil:>; rel="next""#,
            r#"</x>; rel="next""#,
            r#"</x?last=b; rel="next""#,
        ] {
            assert_eq!(next_page(header), None, "{header}");
        }
    }

    #[test]
    fn the_query_of_the_next_page_is_taken_as_it_is_or_not_at_all() {
        for (header, wanted) in [
            (r#"</v2/a/referrers/sha256:0?page=2&x=%2B>; rel="next""#, Some("page=2&x=%2B")),
            (r#"<https://evil.example/v2/a?token=abc#top>; rel=next"#, Some("token=abc")),
            (r#"</v2/a/referrers/sha256:0>; rel="next""#, None),
            (r#"</v2/a?page=2>; rel="prev""#, None),
            (r#"</v2/a?page=2 HTTP/1.1>; rel="next""#, None),
            (r#"</v2/a?page=é>; rel="next""#, None),
        ] {
            assert_eq!(next_query(header), wanted, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic(header in "\\PC*", like in r#"([<>;,="%?&]|rel|next|last|é)*"#) {
            let _ = (next_page(&header), next_page(&like), next_query(&header), next_query(&like));
        }

        #[test]
        fn a_page_survives_the_way_through_a_link(n in proptest::option::of(0..=crate::N_MAX), last in "[!-~]{1,60}") {
            let page = Page { n, last: Some(last) };
            let header = format!("</v2/a/tags/list?{}>; rel=\"next\"", page.to_query());
            prop_assert_eq!(next_page(&header), Some(page));
        }
    }
}
