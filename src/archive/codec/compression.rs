//! Which compression a blob has, by its first bytes; decoding and encoding in this process.
//!
//! A gzip file may consist of several members (RFC 1952, 2.2), a zstd file of several frames and of frames that hold no
//! data (RFC 8878, 3.1): all are read, as one stream. What follows the last of them and is none itself has no meaning,
//! but belongs to the blob.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression as Level, GzBuilder};
use zstd::stream::raw::{Decoder as ZstdFrames, Operation as _};

/// First bytes of a gzip member.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of a zstd frame without data; the first one's lower half is any number.
const ZSTD_SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// What gzip calls level 6: its own default, and that of every engine.
const GZIP_LEVEL: u32 = 6;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// Bytes that are read at a time.
const BUFFER: usize = 256 * 1024;
/// Bytes by which every compression is known.
pub(super) const PEEK: usize = 8;

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// From the first bytes of a blob; four are enough.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        if start.starts_with(&GZIP_MAGIC) {
            Self::Gzip
        } else if is_zstd_frame(start) {
            Self::Zstd
        } else {
            Self::None
        }
    }

    /// As it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

fn is_zstd_frame(start: &[u8]) -> bool {
    let Some(start) = start.get(..4) else {
        return false;
    };
    start == ZSTD_MAGIC
        || (start[0] & 0xf0 == ZSTD_SKIPPABLE[0] && start[1..] == ZSTD_SKIPPABLE[1..])
}

/// A compression that others use and layers do not.
pub(super) fn foreign(start: &[u8]) -> Option<&'static str> {
    const FOREIGN: [(&[u8], &str); 4] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    FOREIGN
        .iter()
        .find(|(magic, _)| start.starts_with(magic))
        .map(|(_, name)| *name)
}

/// A reader that shows at least the bytes by which a compression is known, where it has so many more.
#[derive(Debug)]
pub(super) struct Peeking<R> {
    inner: R,
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> Peeking<R> {
    /// Nothing is read yet.
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            at: 0,
            end: 0,
        }
    }

    /// What it reads from; what was read and not taken is lost.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// The next bytes, at least [`PEEK`] unless the end is near.
    fn peek(&mut self) -> io::Result<&[u8]> {
        if self.end - self.at < PEEK {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            while self.end < PEEK && self.read_more()? > 0 {}
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn read_more(&mut self) -> io::Result<usize> {
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(len) => {
                    self.end += len;
                    return Ok(len);
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

impl<R: Read> Read for Peeking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && buffer.len() >= BUFFER {
            return self.inner.read(buffer);
        }
        let bytes = self.fill_buf()?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: Read> BufRead for Peeking<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            (self.at, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.end);
    }
}

/// Reads what a blob holds.
pub struct Decoder<R> {
    state: State<R>,
}

enum State<R> {
    Plain(Peeking<R>),
    Gzip(Box<GzDecoder<Peeking<R>>>),
    Zstd {
        input: Peeking<R>,
        frames: ZstdFrames<'static>,
        /// Between two frames.
        between: bool,
    },
    /// Behind the last member or frame.
    Trailing(Peeking<R>),
    /// Only while one state becomes another.
    Changing,
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes.
    ///
    /// # Errors
    /// What reading gives; `Unsupported` for a compression that no layer has.
    pub fn new(input: R) -> io::Result<(Self, Compression)> {
        let mut input = Peeking::new(input);
        let start = input.peek()?;
        if let Some(name) = foreign(start) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is compressed with {name}; layers are plain, gzip or zstd"),
            ));
        }
        let compression = Compression::of(start);
        let state = match compression {
            Compression::None => State::Plain(input),
            Compression::Gzip => State::Gzip(Box::new(GzDecoder::new(input))),
            Compression::Zstd => State::Zstd {
                input,
                frames: ZstdFrames::new()?,
                between: true,
            },
        };
        Ok((Self { state }, compression))
    }

    /// Reads the rest of the blob, so that whoever hashes it has seen all, and gives what it was read from.
    ///
    /// # Errors
    /// What reading gives.
    pub fn finish(self) -> io::Result<R> {
        let mut input = match self.state {
            State::Plain(input) | State::Zstd { input, .. } | State::Trailing(input) => input,
            State::Gzip(decoder) => decoder.into_inner(),
            State::Changing => return Err(broken()),
        };
        loop {
            let len = input.fill_buf()?.len();
            if len == 0 {
                return Ok(input.into_inner());
            }
            input.consume(len);
        }
    }

    fn next_member(&mut self) -> io::Result<()> {
        if let State::Gzip(decoder) = std::mem::replace(&mut self.state, State::Changing) {
            let mut input = decoder.into_inner();
            self.state = if input.peek()?.starts_with(&GZIP_MAGIC) {
                State::Gzip(Box::new(GzDecoder::new(input)))
            } else {
                State::Trailing(input)
            };
        }
        Ok(())
    }

    fn leave_frames(&mut self) {
        if let State::Zstd { input, .. } = std::mem::replace(&mut self.state, State::Changing) {
            self.state = State::Trailing(input);
        }
    }
}

/// After a failure a decoder has no state to go on from.
fn broken() -> io::Error {
    io::Error::other("reading went on after a failure")
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.state {
                State::Plain(input) => return input.read(buffer),
                State::Gzip(decoder) => {
                    let len = decoder.read(buffer)?;
                    if len > 0 {
                        return Ok(len);
                    }
                    self.next_member()?;
                }
                State::Zstd {
                    input,
                    frames,
                    between,
                } => {
                    if *between && !is_zstd_frame(input.peek()?) {
                        self.leave_frames();
                        continue;
                    }
                    let bytes = input.fill_buf()?;
                    let at_end = bytes.is_empty();
                    let status = frames.run_on_buffers(bytes, buffer)?;
                    input.consume(status.bytes_read);
                    *between = status.remaining == 0;
                    if status.bytes_written > 0 {
                        return Ok(status.bytes_written);
                    }
                    if at_end && !*between {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                State::Trailing(_) => return Ok(0),
                State::Changing => return Err(broken()),
            }
        }
    }
}

/// Compresses what is written; the same bytes give the same output wherever and whenever that is.
pub enum Encoder<W: Write> {
    /// Passes it on.
    None(W),
    /// One member, without a name and with time 0.
    Gzip(GzEncoder<W>),
    /// One frame.
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Nothing is written yet.
    ///
    /// # Errors
    /// An encoder that cannot be made.
    pub fn new(out: W, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(out),
            Compression::Gzip => {
                Self::Gzip(GzBuilder::new().mtime(0).write(out, Level::new(GZIP_LEVEL)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Writes the end, and gives what it wrote to.
    ///
    /// # Errors
    /// What writing gives.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::None(out) => Ok(out),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(out) => out.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Gives a byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.0.len().min(buffer.len()).min(1);
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn unpack(blob: &[u8]) -> io::Result<Vec<u8>> {
        let read = |input: &mut dyn Read| {
            let (mut decoder, _) = Decoder::new(input)?;
            let mut bytes = Vec::new();
            decoder.read_to_end(&mut bytes)?;
            let mut rest = Vec::new();
            decoder.finish()?.read_to_end(&mut rest)?;
            assert!(rest.is_empty());
            Ok::<_, io::Error>(bytes)
        };
        let slow = read(&mut Slow(blob));
        let fast = read(&mut &*blob);
        assert_eq!(slow.as_ref().ok(), fast.as_ref().ok());
        fast
    }

    #[test]
    fn every_member_and_frame_is_read() {
        let content: Vec<u8> = (0..20_000u32).flat_map(u32::to_le_bytes).collect();
        let skippable = b"\x53\x2a\x4d\x18\x03\0\0\0abc";
        for compression in [Compression::Gzip, Compression::Zstd] {
            let one = pack(&content, compression);
            assert_eq!(Compression::of(&one), compression);
            assert_eq!(unpack(&one).unwrap(), content);
            let empty = pack(b"", compression);
            let two = [&one[..], &empty, &pack(b"more", compression)].concat();
            let want = [&content[..], b"more"].concat();
            assert_eq!(unpack(&two).unwrap(), want);
            for trailing in [&b"x"[..], b"\0\0\0\0\0", b"trailing bytes without meaning"] {
                assert_eq!(unpack(&[&two[..], trailing].concat()).unwrap(), want);
            }
            for cut in [1, 4, 8, one.len() / 2] {
                assert!(unpack(&one[..one.len() - cut]).is_err(), "{compression:?}");
            }
            let mut damaged = one.clone();
            damaged[one.len() / 2] ^= 1;
            assert!(unpack(&damaged).is_err(), "{compression:?}");
            assert_eq!(pack(&content, compression), one);
        }
        let zstd = pack(b"zstd", Compression::Zstd);
        let frames = [&skippable[..], &zstd, skippable, &zstd, skippable].concat();
        assert_eq!(Compression::of(&frames), Compression::Zstd);
        assert_eq!(unpack(&frames).unwrap(), b"zstdzstd");
        assert_eq!(unpack(b"plain").unwrap(), b"plain");
        assert_eq!(unpack(b"").unwrap(), b"");
        let foreign = unpack(b"\xfd7zXZ\0....").unwrap_err().to_string();
        assert!(foreign.contains("xz"), "{foreign}");
    }

    /// The header says nothing of when and where it was made (RFC 1952, 2.3.1).
    #[test]
    fn a_gzip_header_is_always_the_same() {
        let packed = pack(b"abc", Compression::Gzip);
        assert_eq!(packed[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    }
}
