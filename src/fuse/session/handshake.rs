//! Mounting and shaking hands by fuser, for the transports that then go on without it.

use std::io;
use std::sync::{Arc, OnceLock};

use fuser::{Filesystem, KernelConfig, Request};

use crate::fuse::init::{Negotiated, TransportKind, negotiate};
use crate::fuse::settings::Settings;
use crate::union::Union;

/// A file system that answers INIT and nothing else.
#[derive(Debug)]
pub(super) struct Handshake {
    union: Arc<Union>,
    settings: Settings,
    kind: TransportKind,
    agreed: Arc<OnceLock<Negotiated>>,
}

impl Handshake {
    pub(super) fn new(union: Arc<Union>, settings: Settings, kind: TransportKind) -> Self {
        Self {
            union,
            settings,
            kind,
            agreed: Arc::default(),
        }
    }

    /// Where what was agreed on will be.
    pub(super) fn agreed(&self) -> Arc<OnceLock<Negotiated>> {
        Arc::clone(&self.agreed)
    }
}

impl Filesystem for Handshake {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let agreed = negotiate(config, &self.union, &self.settings, self.kind);
        log::debug!("agreed: {agreed:?}");
        if agreed.writeback {
            self.union.leave_mtime_to_kernel();
        }
        // INIT comes once in a session.
        self.agreed.get_or_init(|| agreed);
        Ok(())
    }
}
