use super::*;

fn parse(words: &[&str]) -> Result<Command, ParseError> {
    Command::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

#[test]
fn commands_with_their_arguments() {
    assert_eq!(parse(&["STATUS"]).unwrap(), Command::Status);
    assert_eq!(
        parse(&["branch_create", "dev", "main@0/16B3748"]).unwrap(),
        Command::BranchCreate { name: "dev".into(), point: "main@0/16B3748".into(), expires: None }
    );
    assert_eq!(
        parse(&["callmemaybe", "main", "host=/tmp/a port=5432"]).unwrap(),
        Command::CallMeMaybe {
            timeline: "main".into(),
            connstr: "host=/tmp/a port=5432".into(),
            follow_as: None,
        }
    );
    assert_eq!(
        parse(&["writer_claim", "main", "a1", "pg", "0"]).unwrap(),
        Command::WriterClaim {
            timeline: "main".into(),
            claim: Claim {
                instance: "a1".parse().unwrap(),
                name: "pg".parse().unwrap(),
                after: Generation::NONE,
            },
        }
    );
    assert_eq!(
        parse(&["basebackup", "main", "0/16B3748"]).unwrap(),
        Command::BaseBackup {
            timeline: "main".into(),
            lsn: Some(Lsn::new(0x16B3748)),
            form: Form::WholeSlrus
        }
    );
    assert_eq!(
        parse(&["basebackup", "main"]).unwrap(),
        Command::BaseBackup { timeline: "main".into(), lsn: None, form: Form::WholeSlrus }
    );
    assert_eq!(
        parse(&["basebackup", "main", "0/1", "stubs"]).unwrap(),
        Command::BaseBackup { timeline: "main".into(), lsn: Some(Lsn::new(1)), form: Form::Stubs }
    );
    assert!(matches!(
        parse(&["basebackup", "main", "0/1", "whole"]).unwrap(),
        Command::BaseBackup { form: Form::Whole, .. }
    ));
    assert!(parse(&["basebackup", "main", "0/1", "x"]).is_err());
    assert_eq!(parse(&["begin"]).unwrap(), Command::Ignored { tag: "BEGIN" });
    assert_eq!(parse(&["set", "a", "to", "b"]).unwrap(), Command::Ignored { tag: "SET" });
}

#[test]
fn what_is_wrong_is_named() {
    let message = |words| parse(words).unwrap_err().to_string();
    assert!(message(&["select", "1"]).contains("unknown command \"select\""));
    assert!(message(&["branch_create", "dev"]).contains("branch_create NAME POINT"));
    assert!(message(&["status", "now"]).contains("status"));
    assert!(message(&["basebackup", "main", "16B3748"]).contains("\"16B3748\" is not an LSN"));
    assert_eq!(parse(&[]), Err(ParseError::Empty));
}

#[test]
fn every_specification_is_a_command() {
    for spec in COMMANDS {
        let usage = spec
            .usage
            .replace("[LSN [stubs|whole]]", "0/1 whole")
            .replace("[TIMESTAMP]", "TIMESTAMP")
            .replace("[reparent]", "reparent")
            .replace("[dry]", "dry")
            .replace("[wait]", "wait")
            .replace("RETENTION", "7d")
            .replace("[SECONDS [since]]", "60 since")
            .replace("[GENERATION]", "1")
            .replace("[INSTANCE GENERATION]", "a 1")
            .replace("GENERATION", "1")
            .replace("LSN", "0/1")
            .replace("TIMESTAMP", "2026-11-22T10:00:00Z");
        let words: Vec<_> = usage.split(' ').collect();
        assert!(parse(&words).is_ok(), "{usage}");
    }
}
