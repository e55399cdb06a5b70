//! A backend that wraps another and fails, waits or runs full as it is told.

use starling_storage::{
    Backend, EachRow, Family, MemoryUse, ReadError, Rows, Tier, View, WriteError,
};
use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// The switches of a faulty backend. Its clones are the same.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    fail_write: AtomicBool,
    panic_in_write: AtomicBool,
    panic_in_readers: AtomicBool,
    fail_sync: AtomicBool,
    /// Milliseconds that each sync takes longer.
    slow_sync_ms: AtomicU64,
    /// `u64::MAX`: what the wrapped one says.
    free_bytes: AtomicU64,
    closed: Mutex<bool>,
    opened: Condvar,
    suspected: Mutex<Option<String>>,
    writes: AtomicU64,
    /// Who asked for each sync.
    syncing: Mutex<Vec<String>>,
}

impl Faults {
    pub fn new() -> Faults {
        let faults = Faults::default();
        faults.inner.free_bytes.store(u64::MAX, SeqCst);
        faults
    }

    pub fn around(&self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Faulty { backend, faults: self.clone() })
    }

    pub fn fail_writes(&self) {
        self.inner.fail_write.store(true, SeqCst);
    }

    pub fn panic_in_writes(&self) {
        self.inner.panic_in_write.store(true, SeqCst);
    }

    /// Every read of a reader thread panics, or none any more.
    pub fn panic_in_readers(&self, panic: bool) {
        self.inner.panic_in_readers.store(panic, SeqCst);
    }

    pub fn fail_syncs(&self) {
        self.inner.fail_sync.store(true, SeqCst);
    }

    pub fn slow_syncs(&self, by: Duration) {
        self.inner.slow_sync_ms.store(by.as_millis() as u64, SeqCst);
    }

    pub fn free_bytes(&self, free: u64) {
        self.inner.free_bytes.store(free, SeqCst);
    }

    /// Syncs do not end until [`Self::let_syncs_end`].
    pub fn hold_syncs(&self) {
        *self.inner.closed.lock().unwrap() = true;
    }

    pub fn let_syncs_end(&self) {
        *self.inner.closed.lock().unwrap() = false;
        self.inner.opened.notify_all();
    }

    pub fn suspected(&self) -> Option<String> {
        self.inner.suspected.lock().unwrap().clone()
    }

    pub fn writes(&self) -> u64 {
        self.inner.writes.load(SeqCst)
    }

    pub fn syncs_begun(&self) -> u64 {
        self.inner.syncing.lock().unwrap().len() as u64
    }

    /// The threads that synced, in their order.
    pub fn syncing_threads(&self) -> Vec<String> {
        self.inner.syncing.lock().unwrap().clone()
    }
}

struct Faulty {
    backend: Arc<dyn Backend>,
    faults: Faults,
}

impl Backend for Faulty {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        if self.faults.inner.fail_write.load(SeqCst) {
            return Err(WriteError("no write today".to_owned()));
        }
        assert!(!self.faults.inner.panic_in_write.load(SeqCst), "a defect, as the test asked");
        self.faults.inner.writes.fetch_add(1, SeqCst);
        self.backend.write(rows)
    }

    fn sync(&self) -> Result<(), WriteError> {
        let inner = &self.faults.inner;
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        inner.syncing.lock().unwrap().push(thread);
        std::thread::sleep(Duration::from_millis(inner.slow_sync_ms.load(SeqCst)));
        let mut closed = inner.closed.lock().unwrap();
        while *closed {
            closed = inner.opened.wait(closed).unwrap();
        }
        drop(closed);
        if inner.fail_sync.load(SeqCst) {
            return Err(WriteError("no sync today".to_owned()));
        }
        self.backend.sync()
    }

    fn settle(&self) -> Result<(), WriteError> {
        self.backend.settle()
    }

    fn view(&self) -> Arc<dyn View> {
        Arc::new(FaultyView { view: self.backend.view(), faults: self.faults.clone() })
    }

    fn suspect(&self, reason: &str) {
        *self.faults.inner.suspected.lock().unwrap() = Some(reason.to_owned());
        self.backend.suspect(reason);
    }

    fn free_bytes(&self) -> Option<u64> {
        match self.faults.inner.free_bytes.load(SeqCst) {
            u64::MAX => self.backend.free_bytes(),
            free => Some(free),
        }
    }

    fn memory(&self) -> MemoryUse {
        self.backend.memory()
    }
}

struct FaultyView {
    view: Arc<dyn View>,
    faults: Faults,
}

impl FaultyView {
    fn panic_if_asked(&self) {
        let thread = std::thread::current();
        let reader = thread.name().is_some_and(|name| name.starts_with("reader"));
        let asked = self.faults.inner.panic_in_readers.load(SeqCst);
        assert!(!(reader && asked), "a defect, as the test asked");
    }
}

impl View for FaultyView {
    fn get(
        &self,
        tier: Tier,
        family: Family,
        key: &[u8],
        found: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, ReadError> {
        self.panic_if_asked();
        self.view.get(tier, family, key, found)
    }

    fn scan(
        &self,
        tier: Tier,
        family: Family,
        from: &[u8],
        end: &[u8],
        each: &mut EachRow<'_>,
    ) -> Result<(), ReadError> {
        self.panic_if_asked();
        self.view.scan(tier, family, from, end, each)
    }
}
