//! `zenith verify`: the page server against stock PostgreSQL.

use std::process::ExitCode;
use std::time::Duration;

use control_plane::{
    DeepCounts, Difference, FilesVerification, ManagerCounts, RecordsVerification, Repository,
    Verification, VerifyStep, Watcher,
};
use indicatif::{ProgressBar, ProgressStyle};

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
    let point = arguments.point.as_ref();
    if arguments.files {
        let verified = repository.verify_files(point.map(|point| point.branch.as_str()), watcher);
        bar.0.finish_and_clear();
        let report = verified?;
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => files_table(&report)?,
        }
        return Ok(ended(report.different));
    }
    if arguments.records {
        let verified = repository.verify_records(point, arguments.since, watcher);
        bar.0.finish_and_clear();
        let report = verified?;
        match format {
            Format::Json => output::json(&report)?,
            Format::Table => records_table(&report)?,
        }
        return Ok(ended(report.different()));
    }
    let verified = match &arguments.compute {
        Some(name) => repository.compute(name).and_then(|compute| compute.verify(watcher)),
        None if arguments.deep => repository.verify_deep(point, watcher),
        None => repository.verify(point, watcher),
    };
    bar.0.finish_and_clear();
    let report = verified?;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => table(&report)?,
    }
    Ok(ended(report.different()))
}

fn ended(different: u64) -> ExitCode {
    match different {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(failure::DIFFERENT),
    }
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
            VerifyStep::Reading => ("reading the files of the branch", 0, 0),
            VerifyStep::Copying => ("copying the base image and the WAL", 0, 0),
            VerifyStep::Recovering => ("recovering with stock PostgreSQL", 0, 0),
            VerifyStep::Comparing { done, total } => ("comparing pages", done, total),
            VerifyStep::Records { done, total } => ("comparing images in the WAL", done, total),
            VerifyStep::Judging { done, total } => ("comparing under masks", done, total),
            VerifyStep::Checksums { done, total } => ("computing checksums", done, total),
            VerifyStep::Starting => ("starting a compute and a stock server", 0, 0),
            VerifyStep::Dumping { bytes } => ("comparing dumps", bytes, 0),
            VerifyStep::Amcheck => ("pg_amcheck", 0, 0),
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
        ("stored files read".to_owned(), report.stored_files.compared),
        ("stored files damaged".to_owned(), report.stored_files.different),
        ("relation forks compared".to_owned(), report.relations.compared),
        ("relation forks different".to_owned(), report.relations.different),
        ("pages compared".to_owned(), pages.compared),
        ("pages equal".to_owned(), pages.equal),
        ("pages equal under PostgreSQL's masks".to_owned(), pages.masked_equal),
    ];
    for (reason, count) in &pages.masked {
        rows.push((format!("under a mask: {}", reason.name().replace('_', " ")), *count));
    }
    for (reason, count) in &pages.permitted {
        rows.push((format!("permitted: {}", reason.name().replace('_', " ")), *count));
    }
    if report.compute.is_some() {
        rows.push(("pages that the compute does not have".to_owned(), pages.absent));
        rows.push(("bytes of WAL compared".to_owned(), report.wal_bytes));
    }
    rows.extend([
        ("pages different".to_owned(), pages.different),
        ("SLRU segments compared".to_owned(), report.slru_segments.compared),
        ("SLRU segments different".to_owned(), report.slru_segments.different),
        ("other files compared".to_owned(), report.files.compared),
        ("other files different".to_owned(), report.files.different),
    ]);
    rows.extend(report.deep.iter().flat_map(deep_rows));
    let rows = rows.into_iter().map(|(name, count)| vec![name, count.to_string()]).collect();
    output::table(&["RESULT", "COUNT"], rows)?;
    differences_table(&report.differences, "STOCK LSN")?;
    let seconds = report.seconds;
    let deep_seconds = report.deep.map_or(0.0, |deep| deep.seconds);
    let deep = report.deep.map_or(String::new(), |deep| format!(", deep {:.1}", deep.seconds));
    let what = match &report.compute {
        Some(compute) => format!("compute {compute} and {}@{}", report.branch, report.lsn),
        None => format!("{}@{}", report.branch, report.lsn),
    };
    if let Some(since) = report.since {
        output::say(&format!(
            "from {since} on, where the WAL begins that is kept; the stock server began with what the page \
             server had there"
        ));
    }
    output::say(&format!(
        "{what}: {} in {:.1} s (reading {:.1}, copying {:.1}, recovery {:.1}, comparing {:.1}, masks {:.1}{deep})",
        number(report.different()),
        seconds.reading
            + seconds.copying
            + seconds.recovering
            + seconds.comparing
            + seconds.judging
            + deep_seconds,
        seconds.reading,
        seconds.copying,
        seconds.recovering,
        seconds.comparing,
        seconds.judging,
    ));
    Ok(())
}

fn deep_rows(deep: &DeepCounts) -> Vec<(String, u64)> {
    let DeepCounts { amcheck, checksums, dump, .. } = deep;
    let mut rows = Vec::new();
    if checksums.enabled {
        rows.extend([
            ("checksums computed".to_owned(), checksums.pages - checksums.new_pages),
            ("checksums wrong".to_owned(), checksums.different),
        ]);
    }
    rows.extend([
        ("bytes of dumps equal".to_owned(), dump.bytes),
        ("dumps different".to_owned(), dump.different),
        ("relations looked at by amcheck".to_owned(), amcheck.relations),
        ("found by amcheck".to_owned(), amcheck.different),
    ]);
    rows
}

fn files_table(report: &FilesVerification) -> Result<(), Failure> {
    let rows = [("files read", report.files), ("bytes read", report.bytes)];
    let rows = rows.iter().map(|(name, count)| vec![(*name).to_owned(), count.to_string()]);
    output::table(&["RESULT", "COUNT"], rows.collect())?;
    differences_table(&report.differences, "")?;
    let different = number(report.different);
    output::say(&format!("files of {}: {different} in {:.1} s", report.branch, report.seconds));
    Ok(())
}

fn records_table(report: &RecordsVerification) -> Result<(), Failure> {
    let images = &report.images;
    let mut rows = vec![
        ("records".to_owned(), report.records),
        ("images compared".to_owned(), images.compared),
        ("images equal".to_owned(), images.equal),
        ("images equal under PostgreSQL's masks".to_owned(), images.masked_equal),
    ];
    for (reason, count) in &images.masked {
        rows.push((format!("under a mask: {}", reason.name().replace('_', " ")), *count));
    }
    for (reason, count) in &images.permitted {
        rows.push((format!("images permitted: {}", reason.name().replace('_', " ")), *count));
    }
    rows.push(("images different".to_owned(), images.different));
    let rows = rows.into_iter().map(|(name, count)| vec![name, count.to_string()]).collect();
    output::table(&["RESULT", "COUNT"], rows)?;
    output::line("")?;
    let headings =
        ["RESOURCE MANAGER", "RECORDS", "CONSISTENCY IMAGES", "APPLIED IMAGES", "DIFFERENT"];
    let rows = report.managers.iter().map(|(name, counts)| {
        let ManagerCounts { records, consistency_images, applied_images, different } = *counts;
        let counts = [records, consistency_images, applied_images, different];
        let counts = counts.into_iter().map(|count| count.to_string());
        std::iter::once(name.clone()).chain(counts).collect()
    });
    output::table(&headings, rows.collect())?;
    differences_table(&report.differences, "RECORD END")?;
    if report.managers.values().all(|counts| counts.consistency_images == 0) {
        output::say(
            "there are no images but those that redo applies; a server writes others with \
             wal_consistency_checking = all",
        );
    }
    output::say(&format!(
        "{} from {} to {}: {} in {:.1} s",
        report.branch,
        report.since,
        report.lsn,
        number(report.different()),
        report.seconds
    ));
    Ok(())
}

fn number(different: u64) -> String {
    match different {
        0 => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        n => format!("{n} differences"),
    }
}

/// The differences, if there are any.
fn differences_table(differences: &[Difference], their_lsn: &str) -> Result<(), Failure> {
    if differences.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let rows = differences.iter().map(difference_row).collect();
    let headings = ["DIFFERENT", "WHERE", "BLOCK", "OUR LSN", their_lsn, "RECORD", "WHAT"];
    output::table(&headings, rows)
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
        [text(difference.record), text(difference.manager.as_ref())].join(" ").trim().to_owned(),
        difference.detail.clone(),
    ]
}
