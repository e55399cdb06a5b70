//! Histories in files.

use crate::{Checker, Parsed, Position, Unreadable, Verdict, parse};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// A file that is no history, or cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum CannotRead {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}, line {line}: {error}", path.display())]
    Line { path: PathBuf, line: u64, error: Unreadable },
    #[error("more than {} files", u16::MAX)]
    TooManyFiles,
    #[error("there is no record in {}", named(.0))]
    NoRecord(Vec<PathBuf>),
}

fn named(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

/// Checks files that are one history. Lines of a device that are in several files are taken in
/// the order of the files.
pub fn check_files(paths: &[PathBuf]) -> Result<Verdict, CannotRead> {
    check_files_with(Checker::new(), paths)
}

/// The same with a checker that was told something before.
pub fn check_files_with(mut checker: Checker, paths: &[PathBuf]) -> Result<Verdict, CannotRead> {
    for (file, path) in paths.iter().enumerate() {
        let file = u16::try_from(file).map_err(|_| CannotRead::TooManyFiles)?;
        read(path, |line, bytes| take(&mut checker, Position::new(file, line), bytes))?;
    }
    let verdict = checker.finish();
    // Of nothing everything holds, and nobody meant to ask that.
    match verdict.records {
        0 => Err(CannotRead::NoRecord(paths.to_owned())),
        _ => Ok(verdict),
    }
}

fn take(checker: &mut Checker, position: Position, bytes: &[u8]) -> Result<(), Unreadable> {
    match parse(bytes)? {
        Parsed::Record(record) => checker.record(position, &record),
        Parsed::Aside => {}
        Parsed::Unknown => checker.skip(),
    }
    Ok(())
}

/// Hands over the lines of a file, without their ends. A last line without an end is one that
/// its recorder did not live to finish, and is left out if it cannot be read.
fn read(
    path: &Path,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), Unreadable>,
) -> Result<(), CannotRead> {
    let failed = |error| CannotRead::File { path: path.to_owned(), error };
    let mut input = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(failed)?);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if input.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        let is_whole = bytes.last() == Some(&b'\n');
        let text = bytes.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match take(line, text) {
            Err(_) if !is_whole => break,
            Err(error) => return Err(CannotRead::Line { path: path.to_owned(), line, error }),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The lines at some positions, in their order.
pub(crate) fn lines(paths: &[PathBuf], positions: &[Position]) -> Vec<(Position, String)> {
    let mut found = Vec::new();
    for (file, path) in paths.iter().enumerate() {
        let wanted: Vec<Position> = positions
            .iter()
            .filter(|position| usize::from(position.file()) == file)
            .copied()
            .collect();
        let Some(last) = wanted.last() else { continue };
        // What could be read a moment ago is shown if it still can be.
        let _ = read(path, |line, bytes| {
            let position = Position::new(file as u16, line);
            if wanted.contains(&position) {
                found.push((position, String::from_utf8_lossy(bytes).into_owned()));
            }
            if line < last.line() { Ok(()) } else { Err(Unreadable::Json(String::new())) }
        });
    }
    found
}
