//! Progress bars, on standard error where that is a terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::interrupt::Display;
use crate::archive::Progress;

/// How often a bar is drawn.
const TICK: Duration = Duration::from_millis(120);

/// A bar with bytes, speed and time left, on standard error and only where that is a terminal.
pub(in crate::cli) struct Bar {
    bar: ProgressBar,
    _display: Display,
}

impl Bar {
    /// A bar for `len` bytes, or 0 when it is not known how many it will be.
    #[must_use]
    pub(in crate::cli) fn new(len: u64, what: &'static str) -> Self {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let template = match len {
            0 => "{msg} {spinner} {bytes} ({bytes_per_sec})",
            _ => "{msg} [{bar:30}] {bytes}/{total_bytes} ({bytes_per_sec}, {eta})",
        };
        let bar = ProgressBar::with_draw_target((len > 0).then_some(len), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        let shown = bar.clone();
        let display = Display::new(move || shown.finish_and_clear());
        Self {
            bar,
            _display: display,
        }
    }

    /// Takes it away.
    pub(in crate::cli) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn bytes(&self, count: u64) {
        self.bar.inc(count);
    }
}
