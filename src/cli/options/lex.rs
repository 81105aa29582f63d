//! Cutting an `-o` string into options, and a value into paths. Pure, on bytes.
//!
//! The language is what engines and mount(8) really send:
//! * options are separated by commas; empty ones (`,,`, a trailing `,`) mean nothing;
//! * `\,`, `\:`, `\\` and `\"` stand for the second byte; a backslash before anything else is
//!   itself, because engines pass paths without escaping them;
//! * a value that begins with a double quote ends at the next unescaped quote that is followed by a
//!   comma or by the end, so that commas in an SELinux context need no escape. Other quotes are
//!   ordinary bytes;
//! * a path list is separated by colons.

/// One option as it was written; the value still has its escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    /// The part before the first `=`.
    pub name: &'a [u8],
    /// The part behind the first `=`, without the enclosing quotes; `None` when there is no `=`.
    pub value: Option<&'a [u8]>,
}

/// A value began with a double quote and no quote ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenQuote<'a> {
    /// The option whose value it is.
    pub name: &'a [u8],
}

/// Cuts an `-o` string into its options, in the order in which they were given.
///
/// # Errors
/// A quoted value that never ends.
pub(crate) fn split_options(text: &[u8]) -> Result<Vec<Word<'_>>, OpenQuote<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let name_end = find_unescaped(rest, |byte| byte == b'=' || byte == b',');
        let (name, behind) = rest.split_at(name_end);
        let Some(value) = behind.strip_prefix(b"=") else {
            if !name.is_empty() {
                words.push(Word { name, value: None });
            }
            rest = behind.get(1..).unwrap_or_default();
            continue;
        };
        let (value, behind) = if let Some(quoted) = value.strip_prefix(b"\"") {
            cut_quoted(quoted).ok_or(OpenQuote { name })?
        } else {
            value.split_at(find_unescaped(value, |byte| byte == b','))
        };
        words.push(Word {
            name,
            value: Some(value),
        });
        rest = behind.get(1..).unwrap_or_default();
    }
    Ok(words)
}

/// Cuts a path list at its unescaped colons and removes the escapes. An empty element stays in the
/// list: only the caller knows whether it is a mistake.
#[must_use]
pub(crate) fn split_paths(value: &[u8]) -> Vec<Vec<u8>> {
    let mut paths = Vec::new();
    let mut rest = value;
    loop {
        let (path, behind) = rest.split_at(find_unescaped(rest, |byte| byte == b':'));
        paths.push(unescape(path));
        match behind.strip_prefix(b":") {
            Some(more) => rest = more,
            None => return paths,
        }
    }
}

/// Removes the escapes from one value.
#[must_use]
pub(crate) fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match bytes.peek() {
            Some(&next) if byte == b'\\' && is_escapable(next) => {
                plain.push(next);
                bytes.next();
            }
            _ => plain.push(byte),
        }
    }
    plain
}

fn is_escapable(byte: u8) -> bool {
    matches!(byte, b'\\' | b',' | b':' | b'"')
}

/// Position of the first byte that matches and is not escaped; the length when there is none.
fn find_unescaped(text: &[u8], matches: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'\\' && text.get(at + 1).copied().is_some_and(is_escapable) {
            at += 2;
        } else if matches(byte) {
            return at;
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Cuts `value",more` into `value` and `,more`.
fn cut_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let open = text.get(from..)?;
        let end = from + find_unescaped(open, |byte| byte == b'"');
        let behind = text.get(end + 1..)?;
        if behind.is_empty() || behind.starts_with(b",") {
            return Some((text.get(..end)?, behind));
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn words(text: &str) -> Vec<(String, Option<String>)> {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        split_options(text.as_bytes())
            .unwrap()
            .iter()
            .map(|word| (text_of(word.name), word.value.map(text_of)))
            .collect()
    }

    fn paths(value: &str) -> Vec<String> {
        split_paths(value.as_bytes())
            .into_iter()
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }

    #[test]
    fn options_are_cut_at_commas() {
        type Case = (
            &'static str,
            &'static [(&'static str, Option<&'static str>)],
        );
        let cases: &[Case] = &[
            ("", &[]),
            (",", &[]),
            (",,,", &[]),
            ("volatile", &[("volatile", None)]),
            (",,volatile,", &[("volatile", None)]),
            ("a=1,,b", &[("a", Some("1")), ("b", None)]),
            ("a=", &[("a", Some(""))]),
            ("a=b=c", &[("a", Some("b=c"))]),
            (
                r"upperdir=/a\,b,x",
                &[("upperdir", Some(r"/a\,b")), ("x", None)],
            ),
            // The first backslash escapes the second, so the comma separates.
            (
                r"upperdir=/a\\,b",
                &[("upperdir", Some(r"/a\\")), ("b", None)],
            ),
            (r"upperdir=/a\", &[("upperdir", Some(r"/a\"))]),
            (
                r#"context="u:o:t:s0:c1,c2",volatile"#,
                &[("context", Some("u:o:t:s0:c1,c2")), ("volatile", None)],
            ),
            (r#"context="""#, &[("context", Some(""))]),
            (r#"context="a","#, &[("context", Some("a"))]),
            // A quote inside a value is an ordinary byte.
            (
                r#"upperdir=/a"b,c"#,
                &[("upperdir", Some(r#"/a"b"#)), ("c", None)],
            ),
            (
                r#"upperdir="/a"b,c",d"#,
                &[("upperdir", Some(r#"/a"b,c"#)), ("d", None)],
            ),
            (
                r#"upperdir="/a\",b",c"#,
                &[("upperdir", Some(r#"/a\",b"#)), ("c", None)],
            ),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
                .collect();
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn a_quote_that_never_ends_is_an_error() {
        for text in [
            r#"context="a:b"#,
            r#"context="a"b"#,
            r#"x,context=""#,
            r#"context="a\""#,
        ] {
            let name: &[u8] = b"context";
            assert_eq!(
                split_options(text.as_bytes()),
                Err(OpenQuote { name }),
                "{text}"
            );
        }
    }

    #[test]
    fn path_lists_are_cut_at_colons() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[""]),
            ("/a", &["/a"]),
            ("/a:/b:/a", &["/a", "/b", "/a"]),
            ("/a::/b:", &["/a", "", "/b", ""]),
            (r"/a\:b:/c", &["/a:b", "/c"]),
            (r"/a\\:/b", &[r"/a\", "/b"]),
            (r"/a\,b:/c", &["/a,b", "/c"]),
            (r"/a\b:/c\", &[r"/a\b", r"/c\"]),
            ("l/AB/../diff1:l/CD", &["l/AB/../diff1", "l/CD"]),
        ];
        for (value, expected) in cases {
            assert_eq!(paths(value), *expected, "{value}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_through() {
        let words = split_options(b"upperdir=/\xff\xfe,lowerdir=/\x80:/b").unwrap();
        assert_eq!(words[0].value, Some(&b"/\xff\xfe"[..]));
        assert_eq!(split_paths(words[1].value.unwrap())[0], b"/\x80");
    }

    proptest::proptest! {
        /// Any list of paths, escaped and joined, is read back as it was.
        #[test]
        fn escaping_is_undone(list: Vec<Vec<u8>>) {
            let escaped: Vec<Vec<u8>> = list
                .iter()
                .map(|path| {
                    path.iter()
                        .flat_map(|&byte| if is_escapable(byte) { vec![b'\\', byte] } else { vec![byte] })
                        .collect()
                })
                .collect();
            let mut text = b"lowerdir=".to_vec();
            text.extend(escaped.join(&b':'));
            text.extend(b",volatile");
            let words = split_options(&text).unwrap();
            proptest::prop_assert_eq!(words.len(), 2);
            let expected = if list.is_empty() { vec![Vec::new()] } else { list };
            proptest::prop_assert_eq!(split_paths(words[0].value.unwrap()), expected);
        }

        #[test]
        fn no_input_panics(text: Vec<u8>) {
            if let Ok(words) = split_options(&text) {
                for word in words {
                    proptest::prop_assert!(split_paths(word.value.unwrap_or_default()).len() < text.len() + 2);
                }
            }
        }
    }
}
