//! `zenith page`: one page at a point, as bytes or for people.

use std::fmt::Write;
use std::process::ExitCode;

use control_plane::Repository;
use postgres_formats::{PageImage, RelTag};
use serde_json::{Value, json};

use super::Ended;
use crate::args::PageArguments;
use crate::output::{self, Format};

const BYTES_PER_LINE: usize = 16;

pub fn run(repository: &Repository, arguments: &PageArguments, format: Format) -> Ended {
    let rel = arguments.relation.0.fork(arguments.fork);
    let found = repository.page(&arguments.point, rel, arguments.block)?;
    if arguments.raw {
        output::bytes(found.image.as_slice())?;
        return Ok(ExitCode::SUCCESS);
    }
    let facts = facts(rel, arguments, found.lsn.to_string(), &found.image);
    match format {
        Format::Json => {
            let mut data: serde_json::Map<String, Value> =
                facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            data.insert("hex".to_owned(), json!(hex(found.image.as_slice())));
            output::json(&data)?;
        }
        Format::Table => {
            let rows = facts
                .into_iter()
                .map(|(name, value)| match value {
                    Value::String(text) => vec![name.to_owned(), text],
                    other => vec![name.to_owned(), other.to_string()],
                })
                .collect();
            output::table(&["FACT", "VALUE"], rows)?;
            output::line(&format!("\n{}", dump(found.image.as_slice())))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the page's header says (PostgreSQL's `PageHeaderData` in `storage/bufpage.h`).
fn facts(
    rel: RelTag,
    arguments: &PageArguments,
    lsn: String,
    page: &PageImage,
) -> Vec<(&'static str, Value)> {
    let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    vec![
        ("relation", json!(rel.locator().to_string())),
        ("fork", json!(rel.fork.name())),
        ("block", json!(arguments.block.0)),
        ("lsn", json!(lsn)),
        ("page_lsn", json!(page.lsn().to_string())),
        ("checksum", json!(half(8))),
        ("flags", json!(half(10))),
        ("lower", json!(half(12))),
        ("upper", json!(half(14))),
        ("special", json!(half(16))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Offset, bytes and printable characters, a row of zeros only once.
fn dump(page: &[u8]) -> String {
    let mut text = String::new();
    let mut skipping = false;
    for (row, bytes) in page.chunks(BYTES_PER_LINE).enumerate() {
        let zeros = bytes.iter().all(|byte| *byte == 0);
        if zeros && skipping {
            continue;
        }
        skipping = zeros;
        let printable: String = bytes
            .iter()
            .map(|byte| if (0x20..0x7F).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        let spaced: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mark = if zeros { " *" } else { "" };
        let offset = row * BYTES_PER_LINE;
        let _ = writeln!(text, "{offset:04x}  {}  {printable}{mark}", spaced.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_dumped_once() {
        let mut page = vec![0; 64];
        page[..2].copy_from_slice(b"ab");
        let lines: Vec<String> = dump(&page).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("0000  61 62 00") && lines[0].ends_with("ab.............."));
        assert!(lines[1].starts_with("0010  00"));
        assert_eq!(hex(b"\x00\xff"), "00ff");
    }
}
