//! The allocator, and giving pages that are free back to the system once it is quiet.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Of mimalloc: gives back what is free in the calling thread's heap.
    fn mi_collect(force: bool);
}

/// Has the kernel give this process memory in small pages only. mimalloc asks for huge ones, and
/// then a connection's bytes cost as much as the 2 MiB around them: measured, an idle server is
/// 16 MiB smaller without.
pub fn refuse_huge_pages() {
    // SAFETY: this prctl takes no pointer. If it fails memory is only larger.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Has all threads share one heap of the C library, where the store allocates. By itself each has
/// one of its own, and those of threads grow by the kernel's leave (mprotect) a few KiB at a time:
/// with every block that a reader brings into the block cache.
pub fn share_system_heap() {
    // SAFETY: it takes no pointer, and may be called at any time. If it fails, reading is slower.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// For each thread that allocated much: what is free in its heap goes back.
pub fn give_back_of_thread() {
    // SAFETY: it may be called by any thread at any time.
    unsafe { mi_collect(true) };
}

/// What is free in the system's heap goes back: the store is not written in Rust, and allocates
/// there.
pub fn give_back_of_system_heap() {
    // SAFETY: it may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_in_use_stays() {
        let used = vec![7u8; 1 << 20];
        super::refuse_huge_pages();
        super::share_system_heap();
        super::give_back_of_thread();
        super::give_back_of_system_heap();
        assert!(used.iter().all(|&byte| byte == 7));
    }
}
