//! How far long work has come: a bar on a terminal, plain lines elsewhere. Both on standard error, so that
//! standard output holds results alone.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Plain lines come this often: a log of an hour's work stays readable.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// One stretch of long work, counted in units.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    unit: &'static str,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// `total` is `None` where it isn't known before the end.
    pub(super) fn new(what: &'static str, unit: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (
                    ProgressBar::new(total),
                    "{prefix:>10} {wide_bar} {human_pos}/{human_len} {msg} {eta}",
                ),
                None => (
                    ProgressBar::new_spinner(),
                    "{prefix:>10} {spinner} {human_pos} {msg}",
                ),
            };
            // A template that doesn't parse would be a mistake of ours; the plain style does then.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style);
            bar.set_prefix(what);
            bar.set_message(unit);
            bar
        });
        Progress {
            what,
            unit,
            total,
            done: 0,
            bar,
            last_line: Instant::now(),
        }
    }

    /// So much is done.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.last_line.elapsed() >= LINE_EVERY => self.line(""),
            None => {}
        }
    }

    /// Says something without disturbing the bar.
    pub(super) fn note(&self, text: impl Into<Cow<'static, str>>) {
        let text = text.into();
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// All is done.
    pub(super) fn finish(mut self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => self.line(", done"),
        }
    }

    fn line(&mut self, end: &str) {
        match self.total {
            Some(total) => eprintln!("{}: {} of {total} {}{end}", self.what, self.done, self.unit),
            None => eprintln!("{}: {} {}{end}", self.what, self.done, self.unit),
        }
        self.last_line = Instant::now();
    }
}
