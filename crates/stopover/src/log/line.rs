//! One log line, written field by field, as JSON or as `key=value` text.
//!
//! It promises that whatever stands in a field, the line stays one line, valid JSON where it is JSON, and that no control
//! character reaches a terminal. Writing takes no allocation but the growth of the buffer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use super::{Style, time};

/// What all lines have in common: how they look, and the fields that each of them has.
#[derive(Clone)]
pub(super) struct Form {
    style: Style,
    /// The fields as they stand in a line.
    fields: Arc<[u8]>,
}

impl Form {
    /// Returns a form with constant fields; their names are plain words.
    pub(super) fn new(style: Style, fields: &[(String, String)]) -> Self {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out, style };
        for (name, text) in fields {
            line.text(name, text);
        }
        Self { style, fields: out.into() }
    }
}

/// Writes the fields of one line; [`Line::end`] ends it.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
}

impl<'a> Line<'a> {
    /// Begins a line: the time now, its level, its message and the fields that all have.
    pub(super) fn begin(out: &'a mut Vec<u8>, form: &Form, level: &str, message: &str) -> Self {
        let style = form.style;
        out.extend_from_slice(match style {
            Style::Json => b"{\"time\":\"",
            Style::Text => b"time=",
        });
        time::write_now(out);
        if style == Style::Json {
            out.push(b'"');
        }
        let mut line = Self { out, style };
        line.text("level", level);
        line.text("msg", message);
        line.out.extend_from_slice(&form.fields);
        line
    }

    /// Adds a text. `key` is a plain word of ours.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        let quote = self.style == Style::Json || !is_plain(value);
        if quote {
            self.out.push(b'"');
            write_escaped(self.out, value);
            self.out.push(b'"');
        } else {
            self.out.extend_from_slice(value.as_bytes());
        }
    }

    /// Adds a text that came from outside, at most `bytes_max` of it; what is not UTF-8 shows byte by byte.
    pub(super) fn foreign(&mut self, key: &str, value: &[u8], bytes_max: usize) {
        match std::str::from_utf8(value) {
            Ok(text) => self.text(key, cut(text, bytes_max)),
            Err(_) => {
                self.key(key);
                self.out.push(b'"');
                for &byte in &value[..value.len().min(bytes_max)] {
                    match byte {
                        0x80.. => write_code(self.out, byte),
                        _ => write_escaped_byte(self.out, byte),
                    }
                }
                self.out.push(b'"');
            }
        }
    }

    /// Adds a number.
    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        write_number(self.out, value);
    }

    /// Adds a duration as seconds with three decimals.
    pub(super) fn seconds(&mut self, key: &str, value: Duration) {
        self.key(key);
        write_number(self.out, value.as_secs());
        let millis = value.subsec_millis();
        self.out.push(b'.');
        for unit in [100, 10, 1] {
            write_number(self.out, u64::from(millis / unit % 10));
        }
    }

    /// Adds an address; an IPv4 one that came by an IPv6 socket shows as what it is.
    pub(super) fn address(&mut self, key: &str, value: SocketAddr) {
        self.key(key);
        let quote = self.style == Style::Json;
        if quote {
            self.out.push(b'"');
        }
        match value.ip().to_canonical() {
            IpAddr::V4(ip) => {
                for (at, octet) in ip.octets().into_iter().enumerate() {
                    if at > 0 {
                        self.out.push(b'.');
                    }
                    write_number(self.out, octet.into());
                }
            }
            IpAddr::V6(ip) => {
                use std::io::Write;
                write!(self.out, "[{ip}]").expect("writing to memory cannot fail");
            }
        }
        self.out.push(b':');
        write_number(self.out, value.port().into());
        if quote {
            self.out.push(b'"');
        }
    }

    /// Adds a word that is JSON as it stands, such as `true`.
    pub(super) fn word(&mut self, key: &str, value: &str) {
        self.key(key);
        self.out.extend_from_slice(value.as_bytes());
    }

    /// Ends the line.
    pub(super) fn end(self) {
        self.out.extend_from_slice(match self.style {
            Style::Json => b"}\n",
            Style::Text => b"\n",
        });
    }

    fn key(&mut self, key: &str) {
        match self.style {
            Style::Json => {
                self.out.extend_from_slice(b",\"");
                write_escaped(self.out, key);
                self.out.extend_from_slice(b"\":");
            }
            Style::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
        }
    }
}

/// Returns whether `text` may stand in a line of `key=value` without quotes.
fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    !text.is_empty() && text.bytes().all(plain)
}

/// Returns the beginning of `text`, at most `bytes_max` long, without half a character at its end.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

pub(super) fn write_escaped(out: &mut Vec<u8>, text: &str) {
    // The second byte of U+0080 to U+009F, the control characters above ASCII; their first is 0xC2.
    const CONTROL_LEAD: u8 = 0xC2;
    let bytes = text.as_bytes();
    let needs = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\' | 0x7F | CONTROL_LEAD);
    let mut written = 0;
    while let Some(ahead) = bytes[written..].iter().position(|&byte| needs(byte)) {
        let at = written + ahead;
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        match (bytes[at], bytes.get(at + 1)) {
            (CONTROL_LEAD, Some(&control @ ..0xA0)) => {
                write_code(out, control);
                written = at + 2;
            }
            (byte, _) => write_escaped_byte(out, byte),
        }
    }
    out.extend_from_slice(&bytes[written..]);
}

fn write_escaped_byte(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        ..b' ' | 0x7F => write_code(out, byte),
        _ => out.push(byte),
    }
}

/// Writes the character of that number, below 256, as JSON's `\u00ff`.
fn write_code(out: &mut Vec<u8>, number: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(number >> 4)], HEX[usize::from(number & 15)]]);
}

fn write_number(out: &mut Vec<u8>, mut value: u64) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [0u8; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).expect("what is left of a division by ten is below ten");
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(style: Style, write: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        let mut line = Line { out: &mut out, style };
        write(&mut line);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_text_stays_on_its_line_and_within_its_quotes() {
        let table = [
            ("plain/text:1.0", ",\"k\":\"plain/text:1.0\"", " k=plain/text:1.0"),
            ("", ",\"k\":\"\"", " k=\"\""),
            ("a b", ",\"k\":\"a b\"", " k=\"a b\""),
            ("a=b", ",\"k\":\"a=b\"", " k=\"a=b\""),
            ("\"", ",\"k\":\"\\\"\"", " k=\"\\\"\""),
            ("a\\b", ",\"k\":\"a\\\\b\"", " k=\"a\\\\b\""),
            (
                "\n\r\t\0\x1b\x7f",
                ",\"k\":\"\\n\\r\\t\\u0000\\u001b\\u007f\"",
                " k=\"\\n\\r\\t\\u0000\\u001b\\u007f\"",
            ),
            ("é\u{9b}\u{a0}z", ",\"k\":\"é\\u009b\u{a0}z\"", " k=\"é\\u009b\u{a0}z\""),
        ];
        for (text, json, plain) in table {
            assert_eq!(fields(Style::Json, |line| line.text("k", text)), json);
            assert_eq!(fields(Style::Text, |line| line.text("k", text)), plain);
            let object = format!("{{{}}}", &json[1..]);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&object).unwrap()["k"], text);
        }
    }

    #[test]
    fn constant_fields_stand_in_every_line() {
        let fields = [("service".to_owned(), "a \"b\"".to_owned()), ("n".to_owned(), "1".to_owned())];
        for (style, want) in [
            (Style::Json, "\"msg\":\"m\",\"service\":\"a \\\"b\\\"\",\"n\":\"1\",\"k\":7}\n"),
            (Style::Text, "msg=m service=\"a \\\"b\\\"\" n=1 k=7\n"),
        ] {
            let mut out = Vec::new();
            let mut line = Line::begin(&mut out, &Form::new(style, &fields), "info", "m");
            line.number("k", 7);
            line.end();
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with(want), "{text}");
        }
    }

    #[test]
    fn a_foreign_text_is_cut_between_characters() {
        let table: [(&[u8], usize, &str); 5] = [
            (b"abc", 2, " k=ab"),
            ("aé".as_bytes(), 2, " k=a"),
            ("aé".as_bytes(), 3, " k=\"aé\""),
            (b"a\xff\n\"", 9, " k=\"a\\u00ff\\n\\\"\""),
            (b"a\xff\n", 2, " k=\"a\\u00ff\""),
        ];
        for (value, bytes_max, want) in table {
            assert_eq!(fields(Style::Text, |line| line.foreign("k", value, bytes_max)), want);
        }
    }

    #[test]
    fn numbers_durations_and_addresses_are_written_as_usual() {
        for number in [0, 9, 10, 99, 12_345, u64::MAX] {
            assert_eq!(fields(Style::Json, |line| line.number("k", number)), format!(",\"k\":{number}"));
        }
        for (millis, want) in [(0, "0.000"), (7, "0.007"), (1_234, "1.234"), (60_050, "60.050")] {
            let text = fields(Style::Text, |line| line.seconds("k", Duration::from_millis(millis)));
            assert_eq!(text, format!(" k={want}"));
        }
        let addresses = [
            ("10.0.0.255:1", "10.0.0.255:1"),
            ("[::ffff:10.0.0.1]:65535", "10.0.0.1:65535"),
            ("[::1]:80", "[::1]:80"),
        ];
        for (address, want) in addresses {
            let write = |line: &mut Line<'_>| line.address("k", address.parse().unwrap());
            assert_eq!(fields(Style::Text, write), format!(" k={want}"));
            assert_eq!(fields(Style::Json, write), format!(",\"k\":\"{want}\""));
        }
    }
}
