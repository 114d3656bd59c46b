//! `zenith verify`: the page server against stock PostgreSQL.

use std::process::ExitCode;
use std::time::Duration;

use control_plane::{Count, Difference, Repository, Verification, VerifyStep, Watcher};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Ended;
use crate::args::VerifyArguments;
use crate::failure::{self, Failure};
use crate::output::{self, Format};
use crate::signals::catch_signals;

/// How often the bar moves while nothing is told.
const TICK: Duration = Duration::from_millis(100);

pub fn run(repository: &Repository, arguments: &VerifyArguments, format: Format) -> Ended {
    // From here on there is something to clean up whatever happens.
    let interrupted = catch_signals()?;
    let bar = Bar::new();
    let mut progress = |step| bar.show(step);
    let watcher = &mut Watcher { progress: &mut progress, interrupted: &interrupted };
    let verified = repository.verify(arguments.point.as_ref(), watcher);
    bar.0.finish_and_clear();
    let report = verified?;
    match format {
        Format::Json => output::json(&value(&report))?,
        Format::Table => table(&report)?,
    }
    Ok(match report.different() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(failure::DIFFERENT),
    })
}

/// A progress bar on stderr; nothing is seen of it if that is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {elapsed_precise}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Bar(bar)
    }

    fn show(&self, step: VerifyStep) {
        let (message, done, total) = match step {
            VerifyStep::Copying => ("copying the base image and the WAL", 0, 0),
            VerifyStep::Recovering => ("recovering with stock PostgreSQL", 0, 0),
            VerifyStep::Comparing { done, total } => ("comparing pages", done, total),
            VerifyStep::Judging { done, total } => ("comparing under masks", done, total),
        };
        if self.0.message() != message {
            self.0.set_message(message);
        }
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

fn table(report: &Verification) -> Result<(), Failure> {
    let pages = &report.pages;
    let mut rows = vec![
        ("relation forks compared".to_owned(), report.relations.compared),
        ("relation forks different".to_owned(), report.relations.different),
        ("pages compared".to_owned(), pages.compared),
        ("pages equal".to_owned(), pages.equal),
        ("pages equal under PostgreSQL's masks".to_owned(), pages.masked_equal),
    ];
    for (reason, count) in &pages.permitted {
        rows.push((format!("pages permitted: {}", reason.name().replace('_', " ")), *count));
    }
    rows.extend([
        ("pages different".to_owned(), pages.different),
        ("SLRU segments compared".to_owned(), report.slru_segments.compared),
        ("SLRU segments different".to_owned(), report.slru_segments.different),
        ("other files compared".to_owned(), report.files.compared),
        ("other files different".to_owned(), report.files.different),
    ]);
    let rows = rows.into_iter().map(|(name, count)| vec![name, count.to_string()]).collect();
    output::table(&["RESULT", "COUNT"], rows)?;
    if !report.differences.is_empty() {
        output::line("")?;
        let rows = report.differences.iter().map(difference_row).collect();
        let headings = ["DIFFERENT", "WHERE", "BLOCK", "OUR LSN", "STOCK LSN", "WHAT"];
        output::table(&headings, rows)?;
    }
    let seconds = report.seconds;
    output::say(&format!(
        "{}@{}: {} in {:.1} s (copying {:.1}, recovery {:.1}, comparing {:.1}, masks {:.1})",
        report.branch,
        report.lsn,
        match report.different() {
            0 => "no difference".to_owned(),
            n => format!("{n} differences"),
        },
        seconds.copying + seconds.recovering + seconds.comparing + seconds.judging,
        seconds.copying,
        seconds.recovering,
        seconds.comparing,
        seconds.judging,
    ));
    Ok(())
}

fn difference_row(difference: &Difference) -> Vec<String> {
    fn text(value: Option<impl ToString>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let places = [text(difference.relation), text(difference.name.as_ref())];
    vec![
        difference.kind.to_owned(),
        places.iter().filter(|place| !place.is_empty()).cloned().collect::<Vec<_>>().join(" "),
        text(difference.block),
        text(difference.our_lsn),
        text(difference.their_lsn),
        difference.detail.clone(),
    ]
}

fn value(report: &Verification) -> Value {
    let count = |count: Count| json!({"compared": count.compared, "different": count.different});
    let pages = &report.pages;
    let permitted: serde_json::Map<String, Value> = pages
        .permitted
        .iter()
        .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
        .collect();
    json!({
        "branch": report.branch,
        "timeline": report.timeline.to_string(),
        "lsn": report.lsn.to_string(),
        "different": report.different(),
        "relations": count(report.relations),
        "pages": {
            "compared": pages.compared,
            "equal": pages.equal,
            "masked_equal": pages.masked_equal,
            "permitted": permitted,
            "different": pages.different,
        },
        "slru_segments": count(report.slru_segments),
        "files": count(report.files),
        "differences": report.differences.iter().map(difference_value).collect::<Vec<_>>(),
        "seconds": {
            "copying": report.seconds.copying,
            "recovering": report.seconds.recovering,
            "comparing": report.seconds.comparing,
            "judging": report.seconds.judging,
        },
    })
}

fn difference_value(difference: &Difference) -> Value {
    json!({
        "kind": difference.kind,
        "relation": difference.relation.map(|rel| rel.locator().to_string()),
        "fork": difference.relation.map(|rel| rel.fork.name()),
        "name": difference.name,
        "block": difference.block.map(|block| block.0),
        "our_lsn": difference.our_lsn.map(|lsn| lsn.to_string()),
        "their_lsn": difference.their_lsn.map(|lsn| lsn.to_string()),
        "detail": difference.detail,
    })
}
