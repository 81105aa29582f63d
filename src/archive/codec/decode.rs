//! Decompression in this process.
//!
//! A gzip file may consist of several members (RFC 1952, 2.2), a zstd file of several frames and of
//! frames that hold no data (RFC 8878, 3.1): all are read, as one stream. What follows the last of
//! them and is none itself has no meaning, but belongs to the blob.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::raw::{Decoder as ZstdFrames, Operation as _};

use super::compression::{Compression, GZIP_MAGIC, foreign, is_zstd_frame};
use super::peek::Peeking;

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
    /// Recognizes the compression by the first bytes.
    ///
    /// # Errors
    /// Those of reading; `Unsupported` for a compression that no layer has.
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

    /// Reads the rest of the blob, so that a reader that hashes has seen all of it. Returns that
    /// reader.
    ///
    /// # Errors
    /// Those of reading.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::encode::Encoder;
    use super::*;
    use std::io::Write as _;

    fn pack(bytes: &[u8], compression: Compression) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Returns a byte at a time.
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
            for detach_tree in [1, 4, 8, one.len() / 2] {
                assert!(
                    unpack(&one[..one.len() - detach_tree]).is_err(),
                    "{compression:?}"
                );
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
