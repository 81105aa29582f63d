//! The union with its node ids on the wire: what a request needs that is worked on by another
//! thread.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Generation, INodeNo, Request};

use super::node_ids::{NodeIds, Wire};
use crate::fuse::init::Negotiated;
use crate::fuse::serve::{FailureLog, Requester, SetidRules, Subject, notifier};
use crate::union::{Entry, Error, NodeId, Result, Union, Validity};

/// What requests work on, wherever they are worked on.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) union: Arc<Union>,
    pub(super) ids: NodeIds,
    /// Known after INIT.
    agreed: OnceLock<Negotiated>,
    /// Where the kernel is notified which of its caches are out of date; known once the mount is
    /// made.
    connection: OnceLock<OwnedFd>,
    failures: FailureLog,
}

/// What a request is, and what it is about: for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The name of the system call.
    pub(super) name: &'static str,
    /// The node that it is addressed to.
    pub(super) ino: INodeNo,
    /// The name in that directory.
    pub(super) entry: Option<&'a OsStr>,
}

impl<'a> Call<'a> {
    /// A request about a node.
    pub(super) fn on(name: &'static str, ino: INodeNo) -> Self {
        Self {
            name,
            ino,
            entry: None,
        }
    }

    /// A request about a name in a directory.
    pub(super) fn in_dir(name: &'static str, parent: INodeNo, entry: &'a OsStr) -> Self {
        Self {
            name,
            ino: parent,
            entry: Some(entry),
        }
    }
}

impl Shared {
    pub(super) fn new(union: Arc<Union>) -> Self {
        Self {
            union,
            ids: NodeIds::new(),
            agreed: OnceLock::new(),
            connection: OnceLock::new(),
            failures: FailureLog::default(),
        }
    }

    /// The answer to INIT. It comes once in a session.
    pub(super) fn set_agreed(&self, agreed: Negotiated) {
        self.agreed.get_or_init(|| agreed);
    }

    pub(super) fn agreed(&self) -> Negotiated {
        self.agreed.get().copied().unwrap_or_default()
    }

    /// Takes the connection of the mount, over which the kernel is told of attributes that change
    /// beside a request.
    pub(super) fn connect(self: &Arc<Self>, connection: OwnedFd) {
        self.connection.get_or_init(|| connection);
        let shared = Arc::downgrade(self);
        self.union.notify_attributes_to(move |node| {
            if let Some(shared) = shared.upgrade() {
                shared.invalidate_attributes(node);
            }
        });
    }

    /// The node that a number on the wire means. Errors: ESTALE for none.
    pub(super) fn node(&self, wire: INodeNo) -> Result<NodeId> {
        match self.ids.node(wire.0) {
            Some(node) => Ok(node),
            None => Err(Error::rule(rustix::io::Errno::STALE)),
        }
    }

    /// The number that the kernel knows a node by; `None` when it does not know it.
    pub(super) fn wire(&self, node: NodeId) -> Option<u64> {
        let st_ino = self.union.st_ino(node)?;
        self.ids.known(node, st_ino)
    }

    fn invalidate_attributes(&self, node: NodeId) {
        if let (Some(connection), Some(wire)) = (self.connection.get(), self.wire(node)) {
            notifier::invalidate_attributes(connection, wire);
        }
    }

    /// The rules about setuid and setgid for what a process asks for.
    pub(super) fn setid_rules(&self, requester: Requester) -> SetidRules<'_, impl Fn(NodeId)> {
        SetidRules {
            union: &self.union,
            requester,
            invalidate: |node| self.invalidate_attributes(node),
        }
    }

    /// Logs a failure with the file that it is about.
    #[cold]
    pub(super) fn report(&self, call: Call<'_>, error: &Error) {
        let subject = Subject {
            call: call.name,
            node: self.ids.node(call.ino.0).unwrap_or(NodeId(0)),
            name: call.entry.map(OsStrExt::as_bytes),
        };
        self.failures.report(&self.union, subject, error);
    }

    /// How long attributes hold that are sent with a node id.
    pub(super) fn attr_lifetime(&self, wire: Wire, validity: Validity) -> Duration {
        if wire.is_st_ino {
            self.agreed().attr_lifetime(validity)
        } else {
            Duration::ZERO
        }
    }

    /// How long an entry of a listing holds: fuser has one lifetime for its name and its
    /// attributes.
    pub(super) fn listed_lifetime(&self, wire: Wire, validity: Validity) -> Duration {
        self.attr_lifetime(wire, validity)
            .min(self.agreed().name_lifetime(validity))
    }
}

/// The process that a request comes from.
pub(super) fn requester(req: &Request) -> Requester {
    Requester {
        uid: req.uid(),
        pid: req.pid(),
    }
}

/// Tells nodes apart that go by one number one after the other.
pub(super) fn generation(entry: &Entry) -> Generation {
    Generation(entry.node.0)
}
