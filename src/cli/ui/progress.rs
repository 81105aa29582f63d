//! Progress on a terminal: a bar for each layer with bytes, speed and time left. Elsewhere a line
//! for each layer, when it is complete.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::interrupt::Display;
use crate::archive::Progress;
use crate::cancel;
use crate::store::LoadProgress;

/// A bar of a layer under way.
const BAR: &str = "{prefix}: {wide_bar:.cyan/blue} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
/// A layer that is complete, or was stored already.
const DONE: &str = "{prefix}: {msg}";
/// Bytes without a known end.
const COUNTER: &str = "{prefix}: {bytes} {bytes_per_sec}";
/// How often the terminal is written to.
const TICK: Duration = Duration::from_millis(100);

/// Shows how far layers are, on standard error.
pub(in crate::cli) struct Bars {
    bars: Option<MultiProgress>,
    quiet: bool,
    _display: Option<Display>,
}

impl Bars {
    /// On a terminal bars, else lines; nothing with `quiet`.
    #[must_use]
    pub(in crate::cli) fn new(quiet: bool) -> Self {
        let on_terminal = std::io::stderr().is_terminal() && !quiet;
        let bars =
            on_terminal.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        let shown = bars.clone();
        let display = shown.map(|bars| {
            Display::new(move || {
                if let Err(error) = bars.clear() {
                    log::debug!("the bars: {error}");
                }
                bars.set_draw_target(ProgressDrawTarget::hidden());
            })
        });
        Self {
            bars,
            quiet,
            _display: display,
        }
    }

    fn bar(&self, prefix: &str, bytes: u64) -> Option<ProgressBar> {
        let bar = self.bars.as_ref()?.add(ProgressBar::new(bytes));
        bar.set_prefix(prefix.to_owned());
        bar.set_style(style(BAR));
        Some(bar)
    }

    fn say(&self, layer: &str, what: &str) {
        match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::new(0));
                bar.set_style(style(DONE));
                bar.set_prefix(layer.to_owned());
                bar.finish_with_message(what.to_owned());
            }
            None if !self.quiet => eprintln!("{layer}: {what}"),
            None => {}
        }
    }

    /// Counts bytes whose end is not known.
    #[must_use]
    pub(in crate::cli) fn counter(&self, what: &str) -> Box<dyn Progress> {
        match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::no_length());
                bar.set_prefix(what.to_owned());
                bar.set_style(style(COUNTER));
                bar.enable_steady_tick(TICK);
                Box::new(Counter(bar))
            }
            None => Box::new(()),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl LoadProgress for Bars {
    fn begins(&self, layer: &str, bytes: u64) -> Box<dyn Progress + '_> {
        Box::new(Layer {
            bars: self,
            layer: layer.to_owned(),
            bar: self.bar(layer, bytes),
            left: AtomicU64::new(bytes),
        })
    }

    fn exists(&self, layer: &str) {
        self.say(layer, "already exists");
    }
}

struct Layer<'a> {
    bars: &'a Bars,
    layer: String,
    bar: Option<ProgressBar>,
    /// Bytes that were not read yet: what is dropped before its end is not unpacked.
    left: AtomicU64,
}

impl Progress for Layer<'_> {
    fn bytes(&self, count: u64) {
        let less = |left: u64| Some(left.saturating_sub(count));
        let order = Ordering::Relaxed;
        // It always returns a value.
        let _before = self.left.fetch_update(order, order, less);
        if let Some(bar) = &self.bar {
            bar.inc(count);
        }
    }
}

impl Drop for Layer<'_> {
    fn drop(&mut self) {
        match (&self.bar, self.left.load(Ordering::Relaxed)) {
            (Some(bar), 0) => {
                bar.set_style(style(DONE));
                bar.finish_with_message("unpacked");
            }
            (Some(bar), _) if cancel::check().is_err() => bar.finish_and_clear(),
            (Some(bar), _) => bar.abandon(),
            (None, 0) => self.bars.say(&self.layer, "unpacked"),
            (None, _) => {}
        }
    }
}

struct Counter(ProgressBar);

impl Progress for Counter {
    fn bytes(&self, count: u64) {
        self.0.inc(count);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
