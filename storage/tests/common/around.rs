//! Something around the writing of a backend; all else is the backend's own.

use starling_storage::{Backend, MemoryUse, Rows, View, WriteError};
use std::sync::Arc;

/// What happens around a backend's writing.
pub trait Around: Send + Sync + 'static {
    fn write(&self, inner: &dyn Backend, rows: &Rows) -> Result<(), WriteError> {
        inner.write(rows)
    }

    fn sync(&self, inner: &dyn Backend) -> Result<(), WriteError> {
        inner.sync()
    }

    fn settle(&self, inner: &dyn Backend) -> Result<(), WriteError> {
        inner.settle()
    }
}

/// A backend with something around it.
pub struct Surrounded<B, A> {
    pub inner: B,
    pub around: A,
}

impl<B: Backend, A: Around> Backend for Surrounded<B, A> {
    fn write(&self, rows: &Rows) -> Result<(), WriteError> {
        self.around.write(&self.inner, rows)
    }

    fn sync(&self) -> Result<(), WriteError> {
        self.around.sync(&self.inner)
    }

    fn settle(&self) -> Result<(), WriteError> {
        self.around.settle(&self.inner)
    }

    fn view(&self) -> Arc<dyn View> {
        self.inner.view()
    }

    fn suspect(&self, reason: &str) {
        self.inner.suspect(reason);
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }

    fn memory(&self) -> MemoryUse {
        self.inner.memory()
    }
}
