//! Playing a stream to two fresh servers.

use std::collections::HashMap;
use std::fmt::Write as _;

use unionmount::internal::fuse::Outcome;
use unionmount::internal::fuse::proto::Opcode;

use crate::layout::Layout;
use crate::mask::{self, Shape, masked, records, shape};
use crate::stream::{Exchange, Stream, shown};
use support::client::Client;

/// Bytes of a request's header.
const HEADER: usize = 40;

/// What the recording calls by other names: its order of directories is that of another disk.
#[derive(Default)]
struct Names {
    nodes: HashMap<u64, u64>,
    /// The last position of a listing of a directory, in the recording and here.
    positions: HashMap<(u64, u64), u64>,
}

impl Names {
    fn node(&self, recorded: u64) -> u64 {
        self.nodes.get(&recorded).copied().unwrap_or(recorded)
    }

    /// Two replies gave a node; false when the recorded one was another node here before.
    fn same_node(&mut self, recorded: u64, here: u64) -> bool {
        if recorded == 0 || here == 0 {
            return recorded == here;
        }
        *self.nodes.entry(recorded).or_insert(here) == here
    }

    /// The request as it is to be made here.
    fn translate(&self, exchange: &Exchange) -> Vec<u8> {
        let mut request = exchange.request.clone();
        let mut change = |at: usize, names: &dyn Fn(u64) -> u64| {
            let here = names(exchange.long(at));
            request[at..at + 8].copy_from_slice(&here.to_ne_bytes());
        };
        let node = |recorded| self.node(recorded);
        change(16, &node);
        match Opcode::from_number(exchange.opcode()) {
            Some(Opcode::Link | Opcode::Rename | Opcode::Rename2) => change(HEADER, &node),
            Some(Opcode::CopyFileRange | Opcode::CopyFileRange64) => change(HEADER + 16, &node),
            Some(Opcode::BatchForget) => {
                for at in (HEADER + 8..exchange.request.len()).step_by(16) {
                    change(at, &node);
                }
            }
            Some(Opcode::Readdir | Opcode::Readdirplus) => {
                let directory = exchange.long(16);
                change(HEADER + 8, &|recorded| {
                    let key = (directory, recorded);
                    self.positions.get(&key).copied().unwrap_or(recorded)
                });
            }
            _ => {}
        }
        request
    }

    /// The recorded body and the one from here as they must be equal, having learnt what they name
    /// alike.
    fn align(&mut self, exchange: &Exchange, here: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let opcode = exchange.opcode();
        let (mut a, mut b) = (masked(opcode, &exchange.body), masked(opcode, here));
        match shape(opcode) {
            Shape::Entry if a.len() >= mask::ENTRY && b.len() >= mask::ENTRY => {
                self.align_nodes(&mut a, &mut b)?;
            }
            Shape::Dirents { plus } => {
                let directory = exchange.long(16);
                let (x, y) = (records(&a, plus), records(&b, plus));
                if let (Some(x), Some(y)) = (x.last(), y.last()) {
                    let key = (directory, mask::cookie(&a, x, plus));
                    self.positions.insert(key, mask::cookie(&b, y, plus));
                }
                let (mut x, mut y) = (sorted(&a, plus), sorted(&b, plus));
                for (x, y) in x.iter_mut().zip(&mut y) {
                    if x.0 == y.0 && plus {
                        self.align_nodes(&mut x.1, &mut y.1)?;
                    }
                }
                let join = |records: Vec<(Vec<u8>, Vec<u8>)>| -> Vec<u8> {
                    records.into_iter().flat_map(|record| record.1).collect()
                };
                (a, b) = (join(x), join(y));
            }
            _ => {}
        }
        Ok((a, b))
    }

    fn align_nodes(&mut self, a: &mut [u8], b: &mut [u8]) -> Result<(), String> {
        let node = |body: &[u8]| u64::from_ne_bytes(body[..8].try_into().unwrap());
        let (recorded, here) = (node(a), node(b));
        if !self.same_node(recorded, here) {
            return Err(format!("node {here} is not the one that was {recorded}"));
        }
        a[..8].fill(0);
        b[..8].fill(0);
        Ok(())
    }
}

/// Name and bytes of each entry of a listing, by name, without its position.
fn sorted(body: &[u8], plus: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries: Vec<_> = records(body, plus)
        .iter()
        .map(|record| {
            let mut bytes = body[record.start..record.end].to_vec();
            let dirent = if plus { mask::ENTRY } else { 0 };
            bytes[dirent + 8..dirent + 16].fill(0);
            (record.name.to_vec(), bytes)
        })
        .collect();
    entries.sort();
    entries
}

/// What lies behind the structures of io_uring: each bit is set once.
const RUBBISH: [u8; 2] = [0xaa, 0x55];

/// Plays a stream; gives how many replies were compared, or where they differ first.
pub fn play(stream: &Stream) -> Result<usize, String> {
    let layouts = [(); 1 + RUBBISH.len()].map(|()| Layout::new(stream.writable));
    let [mut dev, mut urings @ ..] = layouts
        .each_ref()
        .map(|layout| Client::new(&layout.config(), stream.agreed));
    let mut names = Names::default();
    let mut replies = 0;
    for exchange in &stream.exchanges {
        let request = names.translate(exchange);
        let differ = |what: &str, a: (Outcome, &[u8]), b: (Outcome, &[u8])| {
            let opcode = Opcode::from_number(exchange.opcode()).map_or("?", Opcode::call);
            let mut text = format!("line {}, {opcode}: {what}\n", exchange.line);
            write!(text, "request\n{}", shown(&request)).unwrap();
            write!(
                text,
                "one {:?}\n{}other {:?}\n{}",
                a.0,
                shown(a.1),
                b.0,
                shown(b.1)
            )
            .unwrap();
            text
        };
        let opcode = exchange.opcode();
        let a = dev.whole(&request);
        let x = body(a, &dev.out);
        for (uring, rubbish) in urings.iter_mut().zip(RUBBISH) {
            let b = uring.in_parts(&request, rubbish);
            let y = body(b, &uring.out);
            if a != b || masked(opcode, x) != masked(opcode, y) {
                return Err(differ("dev and uring differ", (a, x), (b, y)));
            }
        }
        let recorded = (exchange.outcome, &exchange.body[..]);
        if a != exchange.outcome {
            return Err(differ("here, and as recorded", (a, x), recorded));
        }
        match names.align(exchange, x) {
            Ok((was, is)) if was == is => {}
            Ok((was, is)) => return Err(differ("here, and as recorded", (a, &is), (a, &was))),
            Err(why) => return Err(differ(&why, (a, x), recorded)),
        }
        replies += 1;
    }
    Ok(replies)
}

fn body(outcome: Outcome, out: &[u8]) -> &[u8] {
    match outcome {
        Outcome::Reply(len) => &out[..len],
        _ => &[],
    }
}
