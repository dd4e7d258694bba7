//! Foreign text made fit to stand in an error message: short, on one line, without control characters.

/// How many characters of foreign text an error message repeats at most.
const EXCERPT_CHARS_MAX: usize = 80;

/// Returns the beginning of `text` with control characters, quotes and backslashes escaped, at most 80 characters.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(EXCERPT_CHARS_MAX + 3));
    let mut chars = 0;
    for char in text.chars() {
        let escaped = char.escape_debug();
        chars += escaped.len();
        if chars > EXCERPT_CHARS_MAX {
            shown.push('…');
            break;
        }
        shown.extend(escaped);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_stays_as_it_is() {
        assert_eq!(excerpt("library/alpine"), "library/alpine");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(excerpt("a\nb\0\u{1b}[2J"), "a\\nb\\0\\u{1b}[2J");
    }

    #[test]
    fn long_text_is_cut_even_where_escapes_make_it_long() {
        assert_eq!(excerpt(&"x".repeat(1000)).chars().count(), EXCERPT_CHARS_MAX + 1);
        assert!(excerpt(&"\u{1}".repeat(1000)).chars().count() <= EXCERPT_CHARS_MAX + 1);
    }
}
