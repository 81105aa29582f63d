//! A stream as text: what was agreed on, then requests and how they ended.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use unionmount::internal::fuse::Negotiated;
use unionmount::internal::fuse::Outcome;

use crate::mask;

/// A request as /dev/fuse delivers it, and its end.
#[derive(Clone)]
pub struct Exchange {
    pub line: usize,
    pub request: Vec<u8>,
    pub outcome: Outcome,
    pub body: Vec<u8>,
}

#[derive(Clone)]
pub struct Stream {
    pub agreed: Negotiated,
    pub writable: bool,
    pub exchanges: Vec<Exchange>,
}

impl Exchange {
    pub fn number(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.request[at..at + 4].try_into().unwrap())
    }

    pub fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.request[at..at + 8].try_into().unwrap())
    }

    pub fn opcode(&self) -> u32 {
        self.number(4)
    }

    pub fn unique(&self) -> u64 {
        self.long(8)
    }

    pub fn is_error(&self) -> bool {
        matches!(self.outcome, Outcome::Error(_))
    }
}

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/protocol")
        .join(name)
}

impl Stream {
    pub fn load(name: &str) -> Self {
        let path = path(&format!("{name}.txt"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(&text)
    }

    pub fn parse(text: &str) -> Self {
        let mut stream = Self {
            agreed: Negotiated::default(),
            writable: true,
            exchanges: Vec::new(),
        };
        // Requests that have not ended yet, by their numbers.
        let mut under_way = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["" | "#", ..] => {}
                ["read-only"] => stream.writable = false,
                ["=", ref names @ ..] => stream.agreed = agreed(names),
                [">", header, arg, rest] => {
                    let request = [bytes(header), bytes(arg), bytes(rest)].concat();
                    let exchange = Exchange {
                        line: index + 1,
                        request,
                        outcome: Outcome::Silent,
                        body: Vec::new(),
                    };
                    under_way.insert(exchange.unique(), stream.exchanges.len());
                    stream.exchanges.push(exchange);
                }
                ["<", number, ref end @ ..] => {
                    let at = under_way
                        .remove(&number.parse().unwrap())
                        .expect("an end without a request");
                    let exchange: &mut Exchange = &mut stream.exchanges[at];
                    exchange.outcome = match end {
                        ["reply", hex] => {
                            exchange.body = bytes(hex);
                            Outcome::Reply(exchange.body.len())
                        }
                        ["error", errno] => Outcome::Error(errno.parse().unwrap()),
                        ["silent"] => Outcome::Silent,
                        _ => panic!("line {}: {line}", index + 1),
                    };
                }
                _ => panic!("line {}: {line}", index + 1),
            }
        }
        assert!(
            under_way.is_empty(),
            "requests without an end: {under_way:?}"
        );
        assert!(!stream.exchanges.is_empty(), "an empty stream");
        stream
    }

    /// The stream with another reply to one request: the last byte that is compared is another one.
    /// `None` where everything is masked.
    pub fn damaged(&self, at: usize) -> Option<Self> {
        let mut damaged = self.clone();
        let exchange = &mut damaged.exchanges[at];
        match exchange.outcome {
            Outcome::Reply(_) => {
                let clean = mask::masked(exchange.opcode(), &exchange.body);
                let compared = (0..exchange.body.len()).rev().find(|byte| {
                    let mut other = exchange.body.clone();
                    other[*byte] ^= 1;
                    mask::masked(exchange.opcode(), &other) != clean
                });
                match compared {
                    Some(byte) => exchange.body[byte] ^= 1,
                    None if exchange.body.is_empty() => {
                        exchange.outcome = Outcome::Error(libc::EIO)
                    }
                    None => return None,
                }
            }
            Outcome::Error(_) => exchange.outcome = Outcome::Error(libc::EIO),
            Outcome::Silent => exchange.outcome = Outcome::Reply(0),
        }
        Some(damaged)
    }
}

fn agreed(names: &[&str]) -> Negotiated {
    let mut agreed = Negotiated::default();
    for name in names {
        match *name {
            "zero_message_open" => agreed.zero_message_open = true,
            "zero_message_opendir" => agreed.zero_message_opendir = true,
            "keeps_cache" => agreed.keeps_cache = true,
            "writeback" => agreed.writeback = true,
            "long_setxattr" => agreed.long_setxattr = true,
            other => {
                if let Some(number) = other.strip_prefix("generation=") {
                    agreed.generation = number.parse().unwrap();
                    continue;
                }
                let lifetime = other.strip_prefix("lifetime=").expect("a lifetime");
                let (secs, nanos) = lifetime.split_once('.').unwrap();
                agreed.lifetime = Duration::new(secs.parse().unwrap(), nanos.parse().unwrap());
            }
        }
    }
    agreed
}

fn bytes(hex: &str) -> Vec<u8> {
    if hex == "-" {
        return Vec::new();
    }
    assert_eq!(hex.len() % 2, 0);
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// For messages: bytes, of which the ones that are text are readable.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, line) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(
            text,
            "  {:4} {:48} {}",
            16 * at,
            hex.join(" "),
            line.escape_ascii()
        )
        .unwrap();
    }
    text
}
