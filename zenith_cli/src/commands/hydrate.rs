//! `zenith pg hydrate`: everything that a compute does not have yet.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control_plane::{Compute, HydrateProgress, Hydrated};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::signals::catch_signals;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

pub fn run(compute: &Compute, format: Format) -> Result<(), Failure> {
    // What has been brought in is to be told of, and the error says how to go on.
    let interrupted: Arc<AtomicBool> = catch_signals()?;
    let began = Instant::now();
    let mut shown = Shown::new();
    let hydrated = compute
        .hydrate(&mut |progress| shown.show(progress), move || interrupted.load(Ordering::Relaxed));
    shown.bar.finish_and_clear();
    let Hydrated { fetched, left } = hydrated?;
    let seconds = began.elapsed().as_secs_f64();
    output::say(&format!(
        "compute {} has everything: {} fetched in {seconds:.1} s ({}/s)",
        compute.name(),
        HumanBytes(fetched),
        HumanBytes(rate(fetched, seconds)),
    ));
    if left > 0 {
        output::say(&format!(
            "but for {} that it was about to remove when it crashed; `zenith pg start {}` goes on \
             with that",
            HumanBytes(left),
            compute.name()
        ));
    }
    if format == Format::Json {
        output::json(&json!({
            "compute": compute.name(),
            "fetched_bytes": fetched,
            "left_bytes": left,
            "seconds": seconds,
        }))?;
    }
    Ok(())
}

/// Bytes in a second.
fn rate(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { 0 }
}

/// A bar on stderr if that is a terminal, otherwise a line every now and then.
struct Shown {
    bar: ProgressBar,
    began: Instant,
    next_line: Option<Instant>,
}

impl Shown {
    fn new() -> Shown {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let began = Instant::now();
        let next_line = (!io::stderr().is_terminal()).then(|| began + LINE_EVERY);
        Shown { bar, began, next_line }
    }

    fn show(&mut self, progress: HydrateProgress) {
        let HydrateProgress { done, total } = progress;
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        let now = Instant::now();
        if self.next_line.is_some_and(|next| now >= next) {
            self.next_line = Some(now + LINE_EVERY);
            let rate = rate(done, (now - self.began).as_secs_f64());
            let left = total.saturating_sub(done).checked_div(rate).map(Duration::from_secs);
            let left = left.map(|left| format!(", {} left", HumanDuration(left)));
            output::say(&format!(
                "{} of {}, {}/s{}",
                HumanBytes(done),
                HumanBytes(total),
                HumanBytes(rate),
                left.unwrap_or_default(),
            ));
        }
    }
}
