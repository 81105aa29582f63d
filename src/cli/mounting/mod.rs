//! What commands that mount and unmount share: what a mount was asked for, checks before it, who
//! holds on to it, and its end.

pub(in crate::cli) mod container;
mod holders;
mod preflight;
pub(in crate::cli) mod privilege;
pub(in crate::cli) mod remount;
pub(in crate::cli) mod request;
pub(in crate::cli) mod unmount;
mod write_back;
