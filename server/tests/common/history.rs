//! What the devices of a test record, and what `starling-check` says of it.

use starling_check::{Verdict, check_files};
use starling_codec::{
    Epoch, EpochTag,
    history::{After, Fact, Record, VERSION},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// Lines of a history, as they go into a file.
#[derive(Clone, Debug, Default)]
pub struct Recording(Arc<Mutex<Vec<u8>>>);

impl Recording {
    /// What the world has to say first: every device that takes part is recorded, from its first
    /// connection on.
    pub fn complete() -> Recording {
        let recording = Recording::default();
        recording.write(&Record::new(Fact::History { version: VERSION, complete: true }));
        recording
    }

    /// From a file of a recorder that may have been killed.
    pub fn read(file: &Path) -> Recording {
        let mut lines = match fs::read(file) {
            // It was killed before it had begun.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            lines => lines.unwrap(),
        };
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        lines.truncate(whole);
        Recording(Arc::new(Mutex::new(lines)))
    }

    pub fn write(&self, record: &Record) {
        record.append(&mut self.0.lock().unwrap());
    }

    /// Takes a line that is one already.
    pub fn write_line(&self, line: &str) {
        let mut lines = self.0.lock().unwrap();
        lines.extend_from_slice(line.as_bytes());
        lines.push(b'\n');
    }

    /// The server opened its store for this epoch, after something that may excuse a loss.
    pub fn opened(&self, after: After, epoch: Epoch, tag: EpochTag) {
        self.write(&Record::new(Fact::Opened { after, epoch, tag }));
    }

    /// How many lines of a type it has.
    pub fn count(&self, kind: &str) -> usize {
        let lines = self.0.lock().unwrap();
        let begin = format!("{{\"type\":\"{kind}\"");
        lines.split(|byte| *byte == b'\n').filter(|line| line.starts_with(begin.as_bytes())).count()
    }

    /// What a client hands its records to.
    pub fn recorder(&self) -> impl FnMut(Record) + Send + 'static {
        let own = self.clone();
        move |record| own.write(&record)
    }
}

/// Recordings that are one history, in files. Those of one device stand in its order.
pub struct History {
    folder: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl History {
    pub fn of<'a>(recordings: impl IntoIterator<Item = &'a Recording>) -> History {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for recording in recordings {
            let file = folder.path().join(format!("{:03}.history", files.len()));
            fs::write(&file, &*recording.0.lock().unwrap()).unwrap();
            files.push(file);
        }
        History { folder, files }
    }

    /// What `starling-check` finds in it.
    pub fn verdict(&self) -> Verdict {
        check_files(&self.files).unwrap()
    }

    /// It keeps the contract, and says enough for that to mean something: without a device that
    /// tells what it holds at the end, what never arrived cannot be missed. If not, the files stay for
    /// whoever looks into it.
    pub fn must_hold(self) {
        let verdict = self.verdict();
        println!(
            "history: {} records of {} devices, {} of them settled, {} messages",
            verdict.records, verdict.devices, verdict.settled, verdict.messages
        );
        if !verdict.holds() {
            let violations = verdict.violations;
            panic!("see starling-check {}/*: {violations:#?}", self.folder.keep().display());
        }
        assert!(verdict.settled > 0 && verdict.messages > 0 && verdict.skipped == 0);
    }
}
