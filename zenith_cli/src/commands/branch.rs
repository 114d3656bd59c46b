//! `zenith branch`.

use std::process::ExitCode;

use control_plane::{Branch, Branches, DamagedBranch, Error, Repository, RetentionSpec};
use postgres_formats::TimelineId;
use serde_json::{Value, json};

use super::Ended;
use super::compact::progress;
use crate::args::BranchArguments;
use crate::output::{self, Format};

pub fn run(repository: &Repository, arguments: &BranchArguments, format: Format) -> Ended {
    if let Some(name) = &arguments.delete {
        match arguments.reparent {
            true => repository.delete_branch_reparenting(name)?,
            false => repository.delete_branch(name)?,
        }
        output::say(&format!("deleted branch {name}"));
    } else if let Some([old, new]) = arguments.rename.as_deref() {
        let branch = repository.rename_branch(old, new)?;
        output::say(&format!("branch {old} is now {new}"));
        if format == Format::Json {
            output::json(&value(&branch))?;
        }
    } else if let Some(name) = &arguments.detach {
        detach(repository, name, arguments.wait, format)?;
    } else if let Some(name) = arguments.protect.as_ref().or(arguments.unprotect.as_ref()) {
        let branch = repository.protect_branch(name, arguments.protect.is_some())?;
        let now = if branch.protected { "now protected" } else { "no longer protected" };
        output::say(&format!("branch {name} is {now}"));
        if format == Format::Json {
            output::json(&value(&branch))?;
        }
    } else if let (Some(name), Some(retention)) = (&arguments.name, arguments.retention) {
        let branch =
            repository.retain_branch(name, retention).map_err(|error| or_create(error, name))?;
        if let Some(lifetime) = arguments.expires_in {
            repository.expire_branch(name, lifetime.0)?;
        }
        output::say(&format!(
            "how much of the history of branch {name} is kept: {}",
            branch.retention
        ));
        if format == Format::Json {
            output::json(&value(&branch))?;
        }
    } else if let (Some(name), None, Some(lifetime)) =
        (&arguments.name, &arguments.point, arguments.expires_in)
    {
        repository.expire_branch(name, lifetime.0).map_err(|error| or_create(error, name))?;
        output::say(&match lifetime.0 {
            Some(_) => format!("branch {name} will be deleted when its time is over"),
            None => format!("branch {name} will be there until it is deleted"),
        });
    } else if let Some(name) = &arguments.name {
        let lifetime = arguments.expires_in.and_then(|lifetime| lifetime.0);
        let branch = repository.create_branch_for(name, arguments.point.as_ref(), lifetime)?;
        output::say(&format!("made branch {name}{}", origin(&branch)));
        if format == Format::Json {
            output::json(&value(&branch))?;
        }
    } else {
        let branches = repository.all_branches()?;
        list(&branches, format)?;
        for damaged in branches.damaged {
            output::say(&format!("branch {}: it cannot be used: {}", damaged.name, damaged.cause));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn detach(
    repository: &Repository,
    name: &str,
    wait: bool,
    format: Format,
) -> Result<(), crate::failure::Failure> {
    let branch = match wait {
        true => repository.detach_branch_now(name, &mut progress())?,
        false => repository.detach_branch(name)?,
    };
    output::say(&match branch.ancestor {
        None => format!("branch {name} stands on no other"),
        Some(_) => format!("branch {name} is being detached, see `zenith status`"),
    });
    match format {
        Format::Json => output::json(&value(&branch)),
        Format::Table => Ok(()),
    }
}

fn list(branches: &Branches, format: Format) -> Result<(), crate::failure::Failure> {
    let Branches { usable: branches, damaged } = branches;
    if format == Format::Json {
        let mut values: Vec<Value> =
            branches.iter().map(value).chain(damaged.iter().map(damaged_value)).collect();
        values.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        return output::json(&values);
    }
    let rows = tree(branches)
        .into_iter()
        .map(|(label, branch)| {
            let mark = if branch.is_default { "*" } else { " " };
            vec![
                format!("{mark} {label}"),
                branch.ancestor.as_ref().map(|from| from.lsn.to_string()).unwrap_or_default(),
                branch.last_record_lsn.map(|lsn| lsn.to_string()).unwrap_or_default(),
                branch.timeline.to_string(),
                kept(branch),
            ]
        })
        .collect();
    output::table(&["  BRANCH", "FROM LSN", "LAST LSN", "TIMELINE", "KEPT"], rows)?;
    for branch in branches {
        if let Some(stop) = &branch.stop {
            output::say(&format!("branch {}: {stop}", branch.name));
        }
        if branch.detaching {
            output::say(&format!("branch {}: it is being detached", branch.name));
        }
        if let Some(cause) = &branch.kept_because {
            output::say(&format!("branch {}: {cause}", branch.name));
        }
    }
    Ok(())
}

/// How long it is kept, if there is something to say about that.
fn kept(branch: &Branch) -> String {
    let expires = branch.expires.as_ref().map(|expires| format!("until {expires}"));
    let protected = branch.protected.then(|| "protected".to_owned());
    let retention = Some(branch.retention).filter(|retention| *retention != RetentionSpec::Default);
    let retention = retention.map(|retention| format!("history {retention}"));
    protected.into_iter().chain(expires).chain(retention).collect::<Vec<_>>().join(", ")
}

/// Time was set for a branch that is not there: perhaps it was to be made.
fn or_create(error: Error, name: &str) -> Error {
    match error {
        Error::NotFound { thing, name: missing, .. } => Error::NotFound {
            thing,
            name: missing,
            hint: format!("to make one, say where: `zenith branch {name} POINT`"),
        },
        other => other,
    }
}

fn origin(branch: &Branch) -> String {
    match &branch.ancestor {
        None => String::new(),
        Some(from) => {
            let name = match &from.branch {
                Some(branch) => branch.to_string(),
                None => from.timeline.to_string(),
            };
            format!(" at {name}@{}", from.lsn)
        }
    }
}

fn value(branch: &Branch) -> Value {
    let ancestor = branch.ancestor.as_ref();
    json!({
        "name": branch.name.as_str(),
        "timeline": branch.timeline.to_string(),
        "ancestor_branch": ancestor.and_then(|from| from.branch.as_deref()),
        "ancestor_timeline": ancestor.map(|from| from.timeline.to_string()),
        "ancestor_lsn": ancestor.map(|from| from.lsn.to_string()),
        "last_record_lsn": branch.last_record_lsn.map(|lsn| lsn.to_string()),
        "is_default": branch.is_default,
        "stopped_lsn": branch.stop.as_ref().and_then(|stop| stop.lsn).map(|lsn| lsn.to_string()),
        "cause": branch.stop.as_ref().map(|stop| &stop.cause),
        "protected": branch.protected,
        "expires": branch.expires,
        "retention": branch.retention.to_string(),
        "kept_because": branch.kept_because,
        "detaching": branch.detaching,
        "usable": true,
    })
}

/// Of a branch that cannot be read, with the keys of one that can; null is what is not known.
fn damaged_value(damaged: &DamagedBranch) -> Value {
    json!({
        "name": damaged.name.as_str(),
        "timeline": damaged.timeline.map(|timeline| timeline.to_string()),
        "ancestor_branch": null,
        "ancestor_timeline": null,
        "ancestor_lsn": null,
        "last_record_lsn": null,
        "is_default": damaged.is_default,
        "stopped_lsn": null,
        "cause": damaged.cause,
        "protected": null,
        "expires": null,
        "retention": null,
        "kept_because": null,
        "detaching": null,
        "usable": false,
    })
}

/// Branches in the order of a tree, each with its name behind the lines that lead to it.
fn tree(branches: &[Branch]) -> Vec<(String, &Branch)> {
    let known = |timeline| branches.iter().any(|branch| branch.timeline == timeline);
    let mut lines = Vec::new();
    // One whose ancestor has no name any more is a root as well.
    let roots = branches
        .iter()
        .filter(|branch| branch.ancestor.as_ref().is_none_or(|from| !known(from.timeline)));
    for root in roots {
        lines.push((root.name.to_string(), root));
        add_children(branches, root.timeline, "", &mut lines);
    }
    lines
}

fn add_children<'a>(
    branches: &'a [Branch],
    parent: TimelineId,
    indent: &str,
    lines: &mut Vec<(String, &'a Branch)>,
) {
    let is_child = |branch: &&Branch| {
        branch.ancestor.as_ref().is_some_and(|from| from.timeline == parent)
            && branch.timeline != parent
    };
    let children: Vec<&Branch> = branches.iter().filter(is_child).collect();
    for (at, child) in children.iter().enumerate() {
        let last = at + 1 == children.len();
        let (corner, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push((format!("{indent}{corner}{}", child.name), child));
        add_children(branches, child.timeline, &format!("{indent}{below}"), lines);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use control_plane::Ancestor;
    use postgres_formats::Lsn;

    use super::*;

    fn branch(name: &str, id: u8, from: Option<u8>) -> Branch {
        Branch {
            name: name.parse().unwrap(),
            timeline: TimelineId::from_bytes([id; 16]),
            ancestor: from.map(|from| Ancestor {
                timeline: TimelineId::from_bytes([from; 16]),
                branch: None,
                lsn: Lsn::new(0x28),
            }),
            last_record_lsn: None,
            is_default: false,
            stop: None,
            protected: false,
            expires: None,
            retention: RetentionSpec::Default,
            kept_because: None,
            detaching: false,
        }
    }

    #[test]
    fn one_that_cannot_be_read_has_the_same_keys() {
        let damaged = DamagedBranch {
            name: "dev".parse().unwrap(),
            timeline: None,
            is_default: false,
            cause: "gone".to_owned(),
        };
        let (whole, damaged) = (value(&branch("a", 1, None)), damaged_value(&damaged));
        let keys =
            |value: &Value| -> Vec<_> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(keys(&whole), keys(&damaged));
    }

    #[test]
    fn the_tree_shows_who_comes_from_whom() {
        let branches = [
            branch("a", 1, Some(2)),
            branch("b", 3, Some(1)),
            branch("main", 2, None),
            branch("orphan", 9, Some(8)),
            branch("z", 4, Some(2)),
        ];
        let lines: Vec<String> = tree(&branches).into_iter().map(|(label, _)| label).collect();
        assert_eq!(lines, ["main", "├─ a", "│  └─ b", "└─ z", "orphan"]);
    }
}
