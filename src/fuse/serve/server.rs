//! What the operations share: the tree, what was negotiated, and what is kept between requests.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::end::EndState;
use super::failure_log::FailureLog;
use super::opens::Opens;
use super::predictor::ReaddirplusPredictor;
use super::setid::{Requester, SetidRules};
use super::{notifier, trace};
use crate::fuse::init::Negotiated;
use crate::fuse::proto::wire::InHeader;
use crate::union::{NodeId, Result, Union};

/// What serves requests.
#[derive(Debug)]
pub struct Server {
    pub(super) union: Arc<Union>,
    pub(super) agreed: Negotiated,
    /// Where the kernel is notified which of its caches are out of date.
    connection: Option<Arc<OwnedFd>>,
    pub(super) opens: Opens,
    pub(super) predictor: ReaddirplusPredictor,
    pub(super) end: EndState,
    pub(super) failures: FailureLog,
}

impl Server {
    /// Serves `union` as was agreed on with the kernel; `device` is the connection, which
    /// passthrough and notices need.
    #[must_use]
    pub fn new(union: Arc<Union>, agreed: Negotiated, device: Option<OwnedFd>) -> Self {
        trace::session(&agreed);
        let writable = !union.is_read_only();
        let connection = device.map(Arc::new);
        if let Some(connection) = &connection {
            // The union outlives a server that could not be started, whose connection must not stay
            // open.
            let connection = Arc::downgrade(connection);
            union.notify_attributes_to(move |node| {
                if let Some(connection) = connection.upgrade() {
                    notifier::invalidate_attributes(connection, node.0);
                }
            });
        }
        Self {
            union,
            agreed,
            opens: Opens::new(connection.clone().filter(|_| agreed.passthrough), writable),
            connection,
            predictor: ReaddirplusPredictor::default(),
            end: EndState::default(),
            failures: FailureLog::default(),
        }
    }

    /// Whether SETXATTR comes in its long form.
    #[must_use]
    pub fn long_setxattr(&self) -> bool {
        self.agreed.long_setxattr
    }

    /// The tree that is served.
    #[must_use]
    pub fn union(&self) -> &Union {
        &self.union
    }

    /// The rules about setuid and setgid for what the sender of `header` asks for.
    pub(super) fn setid_rules(&self, header: &InHeader) -> SetidRules<'_, impl Fn(NodeId)> {
        SetidRules {
            union: &self.union,
            requester: Requester {
                uid: header.uid,
                pid: header.pid,
            },
            invalidate: |node: NodeId| {
                if let Some(connection) = &self.connection {
                    notifier::invalidate_attributes(connection, node.0);
                }
            },
        }
    }
}

/// Errors: `errno`, as an answer that the rules of the protocol give.
pub(super) fn fail<T>(errno: Errno) -> Result<T> {
    Err(errno.into())
}
