//! `seeds TARGET FOLDER`: writes the inputs that a target begins with into a folder.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (words.next(), words.next()) else {
        eprintln!("usage: seeds TARGET FOLDER");
        return ExitCode::from(2);
    };
    let Some(target) = fuzz::TARGETS.iter().find(|target| target.name == name) else {
        eprintln!("seeds: there is no target {name}");
        return ExitCode::from(2);
    };
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let path = PathBuf::from(&folder).join(format!("seed-{number:04}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("seeds: cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
