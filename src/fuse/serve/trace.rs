//! Requests and replies in hex, for those who want to see the wire, and to record it.
//!
//! The level trace of the target `unionmount::fuse::wire` has one line for each request and one for
//! each reply:
//!
//! ```text
//! = zero_message_open zero_message_opendir keeps_cache long_setxattr generation=7 lifetime=31536000.000000000
//! > 2d00000001000000..(40 bytes) - 6e616d6500
//! < 6 reply 0200000000000000..
//! < 8 error 2
//! < 0 silent
//! ```
//!
//! The first line, one for each session, is what was agreed on with the kernel. `>` is a request:
//! header, fixed structure, and what follows it; `<` is the end of one: its number, and the reply's
//! body. `-` stands for no bytes. Requests that are served at the same time have their lines mixed;
//! the number tells which belong together. `tests/protocol` plays such lines again.
//!
//! For example: `RUST_LOG=unionmount::fuse::wire=trace unionmount mount --log-file wire.log ..`.
//! File names and contents are in it.

use std::fmt;

use zerocopy::IntoBytes;

use super::Outcome;
use crate::fuse::init::Negotiated;
use crate::fuse::proto::InHeader;

const TARGET: &str = "unionmount::fuse::wire";

/// Bytes as hex digits; `-` for none.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        if self.0.is_empty() {
            return f.write_str("-");
        }
        // In pieces: a call of `f` for each byte of a large write would take longer than the write.
        let mut text = [0; 256];
        for piece in self.0.chunks(text.len() / 2) {
            for (place, byte) in text.chunks_exact_mut(2).zip(piece) {
                place[0] = DIGITS[usize::from(byte >> 4)];
                place[1] = DIGITS[usize::from(byte & 15)];
            }
            let written = &text[..2 * piece.len()];
            f.write_str(std::str::from_utf8(written).map_err(|_| fmt::Error)?)?;
        }
        Ok(())
    }
}

/// What a session begins with.
pub(super) fn session(agreed: &Negotiated) {
    log::trace!(target: TARGET, "= {}", Words(agreed));
}

/// Asked once for each request, so that its reply is logged exactly when it was.
pub(super) fn is_on() -> bool {
    log::log_enabled!(target: TARGET, log::Level::Trace)
}

pub(super) fn request(header: &InHeader, arg: &[u8], rest: &[u8]) {
    log::trace!(target: TARGET, "> {} {} {}", Hex(header.as_bytes()), Hex(arg), Hex(rest));
}

pub(super) fn reply(header: &InHeader, outcome: Outcome, out: &[u8]) {
    let unique = header.unique;
    match outcome {
        Outcome::Reply(len) => {
            let body = out.get(..len).unwrap_or(out);
            log::trace!(target: TARGET, "< {unique} reply {}", Hex(body));
        }
        Outcome::Error(errno) => log::trace!(target: TARGET, "< {unique} error {errno}"),
        Outcome::Silent => log::trace!(target: TARGET, "< {unique} silent"),
    }
}

/// The names of what was agreed on, but for what changes nothing about the replies.
struct Words<'a>(&'a Negotiated);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Negotiated {
            zero_message_open,
            zero_message_opendir,
            keeps_cache,
            writeback,
            long_setxattr,
            passthrough,
            expires: _,
            uring: _,
            generation,
            lifetime,
        } = *self.0;
        for (name, agreed) in [
            ("zero_message_open", zero_message_open),
            ("zero_message_opendir", zero_message_opendir),
            ("keeps_cache", keeps_cache),
            ("writeback", writeback),
            ("long_setxattr", long_setxattr),
            ("passthrough", passthrough),
        ] {
            if agreed {
                write!(f, "{name} ")?;
            }
        }
        write!(
            f,
            "generation={generation} lifetime={}.{:09}",
            lifetime.as_secs(),
            lifetime.subsec_nanos()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn bytes_are_written_in_hex() {
        assert_eq!(Hex(&[]).to_string(), "-");
        assert_eq!(Hex(&[0, 0x9f, 0xff]).to_string(), "009fff");
        let many: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let text: String = many.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(Hex(&many).to_string(), text);
    }

    #[test]
    fn what_was_agreed_on_is_written_in_words() {
        let agreed = Negotiated {
            writeback: true,
            long_setxattr: true,
            generation: 7,
            lifetime: Duration::from_millis(1500),
            ..Negotiated::default()
        };
        let words = Words(&agreed).to_string();
        assert_eq!(
            words,
            "writeback long_setxattr generation=7 lifetime=1.500000000"
        );
    }
}
