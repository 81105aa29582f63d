//! Reads a tar stream entry by entry: ustar, pax and GNU, as GNU tar, Python and Go's `archive/tar`
//! (which all engines are built on) read it. Where they disagree, the archive is refused.
//!
//! * A record `size` overrides the header's, also for where the next header is.
//! * Global records apply to nothing (engines ignore them).
//! * Links, directories and special files have no data, also where a size is said; except that one
//!   which is a directory or special file and claims some is refused, because GNU tar would skip
//!   it.
//!
//! Memory is bounded by [`Limits`]; nothing is read twice.

use std::io::BufRead;

use tar::Header;

use super::entry::{EntryKind, Extent, TarEntry};
use super::fields::{self, BLOCK, Type, field, id, type_of, unsigned_field};
use super::input::Input;
use super::pax::PaxRecords;
use super::sparse::{Map, Preface};
use crate::archive::error::{AtEntry as _, Error, Result};
use crate::archive::limits::Limits;
use crate::layer::stat::{Kind, Time};

/// How an archive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should, with blocks of zeros.
    Marked,
    /// The stream ended where another header could have been.
    Unmarked,
}

/// Reads entries. Their data is read by [`TarReader::data`] before the next one is asked for, or
/// skipped.
pub struct TarReader<R> {
    input: Input<R>,
    limits: Limits,
    headers: u64,
    /// Where the data of the current entry belong in the file; `None` for all of it.
    extents: Option<Vec<Extent>>,
    end: Option<End>,
}

/// What headers before it said of the next entry.
#[derive(Default)]
struct Before {
    records: Option<PaxRecords>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    /// Nothing is read yet.
    pub fn new(input: R, limits: Limits) -> Self {
        Self {
            input: Input::new(input, &limits),
            limits,
            headers: 0,
            extents: None,
            end: None,
        }
    }

    /// How the archive ended; `None` before that.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Where the data of the current entry begins, from where this reader began, and how many bytes
    /// they take in the archive without the padding: for callers that read them later.
    #[must_use]
    pub fn data_place(&self) -> (u64, u64) {
        (self.input.taken(), self.input.stored())
    }

    /// What it reads from, behind the last block it took.
    pub fn into_inner(self) -> R {
        self.input.into_inner()
    }

    /// The next entry; `None` behind the last one. An iterator cannot fail and go on: after an
    /// error there is nothing to be read any more.
    ///
    /// # Errors
    /// Anything wrong with the archive, with the entry's name where it is known; those of reading.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        if self.end.is_some() {
            return Ok(None);
        }
        let next = self.read_entry();
        if next.is_err() {
            self.end = Some(End::Unmarked);
        }
        next
    }

    fn read_entry(&mut self) -> Result<Option<TarEntry>> {
        self.input.skip_data()?;
        let mut before = Before::default();
        loop {
            let Some(block) = self.header_block()? else {
                return if before.is_empty() {
                    Ok(None)
                } else {
                    Err(Error::malformed(
                        "the archive ends behind an extended header",
                    ))
                };
            };
            let header = Header::from_byte_slice(&block);
            if !fields::checksum_is_right(header) {
                return Err(Error::malformed(if self.headers == 0 {
                    "this is no tar archive (the first header's checksum is wrong)".to_owned()
                } else {
                    format!(
                        "the archive is damaged: the checksum of the header at byte {} is wrong",
                        self.input.taken() - BLOCK as u64
                    )
                }));
            }
            self.headers += 1;
            if self.headers > self.limits.entries {
                let what = format!("the archive has more than {} headers", self.limits.entries);
                return Err(Error::limit(what, "--max-entries"));
            }
            let own_name = header.path_bytes().into_owned();
            if let Some(entry) = self
                .take_header(header, &own_name, &mut before)
                .at_entry(before.name().unwrap_or(&own_name))?
            {
                return Ok(Some(entry));
            }
        }
    }

    /// A header that is not the last one before the data, or the one that is.
    fn take_header(
        &mut self,
        header: &Header,
        own_name: &[u8],
        before: &mut Before,
    ) -> Result<Option<TarEntry>> {
        let kind = type_of(header, own_name)?;
        let size = || unsigned_field(&header.as_old().size, "size");
        match kind {
            Type::Extended => {
                let bytes = self.extension(size()?)?;
                before.records = Some(PaxRecords::parse(&bytes, self.limits.extents)?);
                Ok(None)
            }
            Type::Global => {
                self.extension(size()?)?;
                Ok(None)
            }
            Type::LongName => {
                before.name = Some(self.long_name(size()?)?);
                Ok(None)
            }
            Type::LongLink => {
                before.link = Some(self.long_name(size()?)?);
                Ok(None)
            }
            Type::File | Type::GnuSparse | Type::Other(_) => {
                let before = std::mem::take(before);
                self.entry(header, kind, own_name, before).map(Some)
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: Type,
        own_name: &[u8],
        before: Before,
    ) -> Result<TarEntry> {
        let mut records = before.records.unwrap_or_default();
        let sparse_name = records.sparse.name.take();
        let path = one_name(sparse_name.or(records.path.take()), before.name)?
            .unwrap_or_else(|| own_name.to_vec());
        self.finish_entry(header, kind, &path, records, before.link)
            .at_entry(&path)
    }

    fn finish_entry(
        &mut self,
        header: &Header,
        kind: Type,
        path: &[u8],
        mut records: PaxRecords,
        long_link: Option<Vec<u8>>,
    ) -> Result<TarEntry> {
        let old = header.as_old();
        let link = one_name(records.link.take(), long_link)?
            .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            .unwrap_or_default();
        for name in [path, &link] {
            if name.len() > self.limits.path {
                return Err(path_too_long(self.limits.path));
            }
        }
        let size = match records.size {
            Some(size) => size,
            None => unsigned_field(&old.size, "size")?,
        };
        let what = self.what(header, kind, &records, size, link)?;
        if what.kind() == Some(Kind::File) && path.ends_with(b"/") {
            return Err(Error::malformed(
                "it is a file, but its name ends as that of a directory",
            ));
        }
        let mode = field(&old.mode, "mode")?;
        Ok(TarEntry {
            path: path.to_vec(),
            what,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: match records.uid {
                Some(uid) => uid,
                None => id(field(&old.uid, "uid")?, "uid")?,
            },
            gid: match records.gid {
                Some(gid) => gid,
                None => id(field(&old.gid, "gid")?, "gid")?,
            },
            mtime: match records.mtime {
                Some(mtime) => mtime,
                None => Time {
                    secs: field(&old.mtime, "mtime")?,
                    nanos: 0,
                },
            },
            xattrs: records.xattrs,
        })
    }

    /// What an entry is, with `size` bytes of data that follow.
    fn what(
        &mut self,
        header: &Header,
        kind: Type,
        records: &PaxRecords,
        size: u64,
        link: Vec<u8>,
    ) -> Result<EntryKind> {
        self.extents = None;
        match kind {
            Type::Other(flag) => {
                if size > 0 && !matches!(flag, '1' | '2') {
                    return Err(Error::malformed(format!(
                        "it claims {size} bytes of data, but is no file"
                    )));
                }
                fields::without_data(flag, header, link)
            }
            _ => {
                self.input.expect_data(size)?;
                let size = self.sparse_size(header, kind, records)?.unwrap_or(size);
                if records.socket && size == 0 {
                    Ok(EntryKind::Socket)
                } else {
                    Ok(EntryKind::File(size))
                }
            }
        }
    }

    /// Reads the map of a sparse file, in any form. Returns the file's real size; `None` for an
    /// ordinary file.
    fn sparse_size(
        &mut self,
        header: &Header,
        kind: Type,
        records: &PaxRecords,
    ) -> Result<Option<u64>> {
        let most = self.limits.extents;
        let (map, real_size) = if kind == Type::GnuSparse {
            let Some(gnu) = header.as_gnu() else {
                return Err(Error::malformed(
                    "it is a GNU sparse file without a GNU header",
                ));
            };
            let mut map = Map::new(most);
            let mut more = map.push_header(gnu)?;
            while more {
                // These blocks belong to the header, not to the data.
                more = map.push_block(&self.input.whole_block()?)?;
            }
            (map, unsigned_field(&gnu.realsize, "size")?)
        } else if records.sparse.major == Some(1) {
            let mut preface = Preface::new(most);
            loop {
                let block = self.input.data_block()?;
                let block =
                    block.ok_or_else(|| Error::malformed("the map of its data ends early"))?;
                if preface.push_block(&block)? {
                    break;
                }
            }
            (
                preface.map(),
                records.sparse.real_size.unwrap_or(self.input.stored()),
            )
        } else if records.sparse.major.is_some_and(|major| major != 0) {
            return Err(Error::malformed(
                "it is a sparse file of an unknown version",
            ));
        } else if let Some(real_size) = records.sparse.real_size {
            (Map::from_records(&records.sparse, most)?, real_size)
        } else {
            return Ok(None);
        };
        self.extents = Some(map.finish(real_size, self.input.stored())?);
        Ok(Some(real_size))
    }

    /// The data of the current entry, in order: calls `sink` with where in the file a piece
    /// belongs, and the piece. What is not mentioned is zeros.
    ///
    /// # Errors
    /// A stream that ends early, those of reading and those of `sink`.
    pub fn data(&mut self, sink: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.input.data(self.extents.take(), sink)
    }

    /// The next header; `None` at the end of the archive.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.input.block()? else {
            self.end = Some(End::Unmarked);
            return Ok(None);
        };
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        // The mark is two blocks. Some leave the second one away; one in the middle would end the
        // archive for some readers and not for others.
        match self.input.block()? {
            Some(second) if second.iter().any(|byte| *byte != 0) => Err(Error::malformed(
                "the archive is damaged: entries follow a block of zeros",
            )),
            _ => {
                self.end = Some(End::Marked);
                Ok(None)
            }
        }
    }

    /// The data of a header that says something about another one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        let most = self.limits.pax;
        let len = usize::try_from(size).ok().filter(|len| *len <= most);
        let Some(len) = len else {
            let what = format!("its extended header has {size} bytes, more than {most}");
            return Err(Error::limit(what, "--max-pax"));
        };
        let mut bytes = Vec::with_capacity(len);
        self.input.expect_data(size)?;
        self.input.data(None, |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        self.input.skip_data()?;
        Ok(bytes)
    }

    /// The data of GNU's headers for long names: the name, ended by NUL.
    fn long_name(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > self.limits.path as u64 + 1 {
            return Err(path_too_long(self.limits.path));
        }
        let mut name = self.extension(size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }
}

impl Before {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }

    fn name(&self) -> Option<&[u8]> {
        let by_record = self
            .records
            .as_ref()
            .and_then(|records| records.path.as_deref());
        by_record.or(self.name.as_deref())
    }
}

/// Of a name in a pax record and one in a GNU header: readers disagree on which of the two holds.
fn one_name(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err(Error::refused(format!(
            "it has another name too, '{}'",
            gnu.escape_ascii()
        ))
        .at(&pax)),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

fn path_too_long(most: usize) -> Error {
    Error::limit(
        format_args!("its name or its link's has more than {most} bytes"),
        "--max-path",
    )
}
