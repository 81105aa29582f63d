//! READDIR and READDIRPLUS: as many entries as fit.

use super::failure_log::Subject;
use super::listing_pages::{END_NOT_KEPT, ends_with_page};
use super::server::Server;
use crate::fuse::proto::reply::{Body, bare_entry};
use crate::fuse::proto::wire::ReadIn;
use crate::layer::stat::Kind;
use crate::union::{DirEntry, NodeId, Result};

impl Server {
    /// Names, types and inode numbers.
    pub(super) fn readdir(&self, node: NodeId, arg: &ReadIn, body: &mut Body<'_>) -> Result<()> {
        let limit = usize::try_from(arg.size).unwrap_or(usize::MAX);
        self.union
            .readdir(node, arg.offset, |entry| body.dirent(limit, None, entry))?;
        self.end_of_listing(node, body)
    }

    /// Ends a listing of which nothing was left.
    fn end_of_listing(&self, node: NodeId, body: &mut Body<'_>) -> Result<()> {
        if body.is_empty() && self.agreed.zero_message_opendir && ends_with_page(&self.union, node)?
        {
            body.put(&END_NOT_KEPT)?;
        }
        Ok(())
    }

    /// The same with attributes, where they will be of use (`predictor.rs`); the kernel counts a
    /// lookup on each entry that it gets.
    pub(super) fn readdirplus(
        &self,
        node: NodeId,
        arg: &ReadIn,
        body: &mut Body<'_>,
    ) -> Result<()> {
        let limit = usize::try_from(arg.size).unwrap_or(usize::MAX);
        let of_files = self.predictor.wants_attributes(node, arg.offset);
        let wanted = |entry: &DirEntry| of_files || entry.kind == Kind::Dir;
        let listed = self
            .union
            .readdirplus(node, arg.offset, wanted, |entry, found| {
                let plus = match &found {
                    Some(found) => self.entry(found),
                    None => bare_entry(entry),
                };
                body.dirent(limit, Some(&plus), entry)
            });
        match listed {
            // What was added is counted: it must be sent. The next call meets the same error first.
            Err(error) if !body.is_empty() => {
                let subject = Subject {
                    call: "readdirplus",
                    node,
                    name: None,
                };
                self.failures.report(&self.union, subject, &error);
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => self.end_of_listing(node, body),
        }
    }
}
