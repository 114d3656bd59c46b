//! `zenith tag`.

use std::process::ExitCode;

use control_plane::{DamagedTag, Repository, Tag};
use serde_json::{Value, json};

use super::Ended;
use crate::args::TagArguments;
use crate::output::{self, Format};

pub fn run(repository: &Repository, arguments: &TagArguments, format: Format) -> Ended {
    if let Some(name) = &arguments.delete {
        repository.delete_tag(name)?;
        output::say(&format!("deleted tag {name}"));
    } else if let Some(name) = &arguments.name {
        let tag = repository.create_tag(name, arguments.point.as_ref())?;
        output::say(&format!("made tag {name} at {}", place(&tag)));
        if format == Format::Json {
            output::json(&value(&tag))?;
        }
    } else {
        let tags = repository.all_tags()?;
        if format == Format::Json {
            let mut values: Vec<Value> =
                tags.usable.iter().map(value).chain(tags.damaged.iter().map(damaged)).collect();
            values.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
            output::json(&values)?;
        } else {
            let row = |tag: &Tag| {
                let branch = tag.branch.as_ref().map(ToString::to_string).unwrap_or_default();
                vec![tag.name.to_string(), branch, tag.lsn.to_string(), tag.created.clone()]
            };
            let rows = tags.usable.iter().map(row).collect();
            output::table(&["TAG", "BRANCH", "LSN", "CREATED"], rows)?;
        }
        for damaged in tags.damaged {
            output::say(&format!("tag {}: it cannot be used: {}", damaged.name, damaged.cause));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn place(tag: &Tag) -> String {
    match &tag.branch {
        Some(branch) => format!("{branch}@{}", tag.lsn),
        None => format!("{}@{}", tag.timeline, tag.lsn),
    }
}

fn value(tag: &Tag) -> Value {
    json!({
        "name": tag.name.as_str(),
        "branch": tag.branch.as_deref(),
        "timeline": tag.timeline.to_string(),
        "lsn": tag.lsn.to_string(),
        "created": tag.created,
        "cause": null,
        "usable": true,
    })
}

/// Of a tag that cannot be read, with the keys of one that can; null is what is not known.
fn damaged(tag: &DamagedTag) -> Value {
    json!({
        "name": tag.name.as_str(),
        "branch": null,
        "timeline": null,
        "lsn": null,
        "created": null,
        "cause": tag.cause,
        "usable": false,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use postgres_formats::{Lsn, TimelineId};

    use super::*;

    #[test]
    fn one_that_cannot_be_read_has_the_same_keys() {
        let whole = value(&Tag {
            name: "v1".parse().unwrap(),
            branch: None,
            timeline: TimelineId::from_bytes([1; 16]),
            lsn: Lsn::new(0x28),
            created: "2026-11-22T10:00:00Z".to_owned(),
        });
        let broken = damaged(&DamagedTag { name: "v1".parse().unwrap(), cause: "gone".to_owned() });
        let keys =
            |value: &Value| -> Vec<_> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(&whole), keys(&broken));
    }
}
