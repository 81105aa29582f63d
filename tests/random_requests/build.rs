//! From drafts to the bytes of requests.

use unionmount::internal::fuse::proto::Opcode;
use unionmount::internal::fuse::proto::wire::SetxattrIn;

use crate::draft::{Draft, XATTRS};
use crate::session::Session;

/// What a request is about, mostly.
#[derive(Clone, Copy)]
enum About {
    Anything,
    Directory,
    File,
}

/// What the two nodes of a request are.
fn about(opcode: u32) -> [About; 2] {
    match Opcode::from_number(opcode) {
        Some(Opcode::Link) => [About::Directory, About::File],
        Some(
            Opcode::Lookup
            | Opcode::Symlink
            | Opcode::Mknod
            | Opcode::Mkdir
            | Opcode::Unlink
            | Opcode::Rmdir
            | Opcode::Rename
            | Opcode::Rename2
            | Opcode::Create
            | Opcode::Tmpfile
            | Opcode::Readdir
            | Opcode::Readdirplus,
        ) => [About::Directory; 2],
        Some(
            Opcode::Read
            | Opcode::Write
            | Opcode::Readlink
            | Opcode::Fallocate
            | Opcode::Lseek
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64,
        ) => [About::File; 2],
        _ => [About::Anything; 2],
    }
}

fn structure(fields: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (size, value) in fields {
        match size {
            4 => bytes.extend_from_slice(&(*value as u32).to_ne_bytes()),
            _ => bytes.extend_from_slice(&value.to_ne_bytes()),
        }
    }
    bytes
}

impl Session {
    fn node(&self, choice: u16, about: About) -> u64 {
        let kind = match (about, choice % 16) {
            (About::Anything, _) | (_, 0) => 0,
            (About::Directory, _) => 1,
            (About::File, _) => 2,
        };
        let nodes = match &self.nodes[kind] {
            none if none.is_empty() => &self.nodes[0],
            nodes => nodes,
        };
        let choice = choice / 16;
        match choice {
            0xff0.. => [0, u64::MAX, 4711, 1 << 40][usize::from(choice & 3)],
            // The latest ones more often.
            0x800.. => nodes[nodes.len() - 1 - usize::from(choice) % nodes.len().min(4)],
            _ => nodes[usize::from(choice) % nodes.len()],
        }
    }

    /// Structure and rest of a request.
    fn build(&self, draft: &Draft) -> (Vec<u8>, Vec<u8>) {
        let n = &draft.numbers;
        let [first, second] = about(draft.opcode);
        let node = self.node(draft.nodes[0], first);
        let other = self.node(draft.nodes[1], second);
        let named = |name: &[u8]| [name, b"\0"].concat();
        let [name, second] = draft.names.map(named);
        let both = [&name[..], &second].concat();
        let xattr = || named(XATTRS[n[4] as usize % XATTRS.len()]);
        let len = draft.data.len() as u64;
        let size = n[2] % 8192;
        let read = structure(&[(8, 0), (8, n[1]), (4, size), (4, 0), (8, 0), (4, 0), (4, 0)]);
        let copy = [
            (8, 0),
            (8, n[0]),
            (8, other),
            (8, 0),
            (8, n[1]),
            (8, n[2]),
            (8, 0),
        ];
        let Some(opcode) = Opcode::from_number(draft.opcode) else {
            return (Vec::new(), draft.data.clone());
        };
        let (arg, rest): (Vec<u8>, Vec<u8>) = match opcode {
            Opcode::Lookup | Opcode::Unlink | Opcode::Rmdir => (vec![], name),
            Opcode::Symlink => (vec![], both),
            Opcode::Forget => (structure(&[(8, n[0])]), vec![]),
            Opcode::BatchForget => {
                let nodes = structure(&[(8, other), (8, n[0] % 4), (8, node), (8, 1)]);
                (structure(&[(4, 2), (4, 0)]), nodes)
            }
            Opcode::Setattr => {
                let nanos = n[3] % 1_000_000_001;
                let fields = [
                    (4, n[5] & 0xfff),
                    (4, 0),
                    (8, 0),
                    (8, n[1]),
                    (8, 0),
                    (8, n[2]),
                    (8, n[3]),
                    (8, n[4]),
                    (4, nanos),
                    (4, nanos),
                    (4, 0),
                    (4, n[0]),
                    (4, 0),
                    (4, n[2] % 3000),
                    (4, n[3] % 3000),
                    (4, 0),
                ];
                (structure(&fields), vec![])
            }
            Opcode::Mknod => {
                let kind = [
                    0o100_000, 0o100_000, 0o10_000, 0o20_000, 0o60_000, 0o140_000, 0o40_000,
                    0o120_000, 0,
                ][n[1] as usize % 9];
                let device = if n[2] & 1 == 0 { 0 } else { 0x103 };
                (
                    structure(&[
                        (4, kind | n[0] & 0o7777),
                        (4, device),
                        (4, n[3] & 0o777),
                        (4, 0),
                    ]),
                    name,
                )
            }
            Opcode::Mkdir => (structure(&[(4, n[0] & 0o7777), (4, n[1] & 0o777)]), name),
            Opcode::Rename => (structure(&[(8, other)]), both),
            Opcode::Rename2 => (structure(&[(8, other), (4, n[0] % 8), (4, 0)]), both),
            Opcode::Link => (structure(&[(8, other)]), name),
            Opcode::Create => (
                structure(&[
                    (4, n[1]),
                    (4, 0o100_000 | n[0] & 0o7777),
                    (4, n[2] & 0o777),
                    (4, 0),
                ]),
                name,
            ),
            Opcode::Tmpfile => (
                structure(&[(4, n[1]), (4, n[0] & 0o7777), (4, n[2] & 0o777), (4, 0)]),
                vec![],
            ),
            Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => (read, vec![]),
            Opcode::Write => {
                let fields = [
                    (8, 0),
                    (8, n[1]),
                    (4, len),
                    (4, n[2]),
                    (8, 0),
                    (4, 0),
                    (4, 0),
                ];
                (structure(&fields), draft.data.clone())
            }
            Opcode::Setxattr => {
                let mut arg = structure(&[(4, len), (4, n[0] % 4), (4, n[1] % 2), (4, 0)]);
                if !self.client.server.long_setxattr() {
                    arg.truncate(size_of::<SetxattrIn>() / 2);
                }
                (arg, [&xattr()[..], &draft.data].concat())
            }
            Opcode::Getxattr => (structure(&[(4, n[0]), (4, 0)]), xattr()),
            Opcode::Listxattr => (structure(&[(4, n[0]), (4, 0)]), vec![]),
            Opcode::Removexattr => (vec![], xattr()),
            Opcode::Ioctl => {
                let commands = [0x8008_6601, 0x4008_6602, 0x8008_7601, 0x801c_581f, n[0]];
                // No immutable files: the next test could not remove them.
                let flags = structure(&[(4, n[1] & 0xc8)]);
                let command = commands[n[2] as usize % 5];
                let fields = [(8, 0), (4, 0), (4, command), (8, 0), (4, 4), (4, n[3] % 64)];
                (structure(&fields), flags)
            }
            Opcode::Fallocate => (
                structure(&[(8, 0), (8, n[0]), (8, n[1]), (4, n[2] % 128), (4, 0)]),
                vec![],
            ),
            Opcode::Lseek => (
                structure(&[(8, 0), (8, n[0]), (4, n[1] % 6), (4, 0)]),
                vec![],
            ),
            Opcode::CopyFileRange | Opcode::CopyFileRange64 => (structure(&copy), vec![]),
            other => (vec![n[0] as u8; other.fixed_size()], draft.data.clone()),
        };
        (arg, rest)
    }

    pub fn request(&mut self, draft: &Draft) -> Vec<u8> {
        let (arg, rest) = self.build(draft);
        self.client.unique += 2;
        let len = (40 + arg.len() + rest.len()) as u64;
        let id = u64::from(draft.uid);
        let mut request = structure(&[
            (4, len),
            (4, u64::from(draft.opcode)),
            (8, self.client.unique),
            (8, self.node(draft.nodes[0], about(draft.opcode)[0])),
            (4, id),
            (4, id),
            (4, u64::from(std::process::id())),
            (4, 0),
        ]);
        request.extend_from_slice(&arg);
        request.extend_from_slice(&rest);
        if let Some((at, byte)) = draft.damage {
            // Not in the header but for the length of extensions: it would be another request.
            let places = request.len() - 36;
            request[36 + usize::from(at) % places] = byte;
        }
        if let Some(at) = draft.cut {
            request.truncate(40 + usize::from(at) % (request.len() - 39));
            let len = request.len() as u32;
            request[..4].copy_from_slice(&len.to_ne_bytes());
        }
        request
    }
}
