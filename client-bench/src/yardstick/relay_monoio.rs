//! Y2 on io_uring through monoio: reads stay pending, and the writes of a turn go to the kernel
//! in one call.

use crate::dialect::{ACK, HEADER_BYTES};
use anyhow::Result;
use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable},
    net::{TcpListener, TcpStream},
};
use std::{
    cell::RefCell,
    future::poll_fn,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

const READ_BYTES: usize = 16 * 1024;

/// What waits to be written to one connection.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    writer: Option<Waker>,
    closed: bool,
}

type Shared = Rc<RefCell<Outbox>>;
type Names = Rc<RefCell<Vec<Weak<RefCell<Outbox>>>>>;

/// Relays until the process is ended.
pub fn serve() -> Result<()> {
    let listener = super::serving()?;
    let mut runtime =
        monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4_096).build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let names = Names::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (read, write) = TcpStream::into_split(stream);
            let outbox = Shared::default();
            monoio::spawn(write_on(write, outbox.clone()));
            monoio::spawn(read_on(read, outbox, names.clone()));
        }
    })
}

async fn read_on(mut stream: OwnedReadHalf<TcpStream>, own: Shared, names: Names) {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        match result {
            Ok(count) if count > 0 => {}
            _ => break,
        }
        if rest.is_empty() {
            let consumed = relay(&buffer, &own, &names);
            rest.extend_from_slice(&buffer[consumed..]);
        } else {
            rest.extend_from_slice(&buffer);
            let consumed = relay(&rest, &own, &names);
            rest.drain(..consumed);
        }
        buffer.clear();
    }
    own.borrow_mut().closed = true;
    push(&own, &[]);
}

/// Hands on whole frames; says how many bytes they were.
fn relay(bytes: &[u8], own: &Shared, names: &Names) -> usize {
    let mut rest = bytes;
    while let Some((head, _)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, d0, d1, d2, d3] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let name = u32::from_le_bytes([d0, d1, d2, d3]) as usize;
        let Some((frame, behind)) = rest.split_at_checked(4 + length) else { break };
        rest = behind;
        if frame.len() == HEADER_BYTES {
            let mut names = names.borrow_mut();
            if names.len() <= name {
                names.resize(name + 1, Weak::new());
            }
            names[name] = Rc::downgrade(own);
        } else if let Some(to) = names.borrow().get(name).and_then(Weak::upgrade) {
            push(&to, frame);
        }
        push(own, &ACK);
    }
    bytes.len() - rest.len()
}

fn push(outbox: &Shared, bytes: &[u8]) {
    let mut outbox = outbox.borrow_mut();
    outbox.bytes.extend_from_slice(bytes);
    if let Some(writer) = outbox.writer.take() {
        writer.wake();
    }
}

async fn write_on(mut stream: OwnedWriteHalf<TcpStream>, outbox: Shared) {
    let mut bytes = Vec::new();
    loop {
        let more = poll_fn(|context| {
            let mut outbox = outbox.borrow_mut();
            if outbox.bytes.is_empty() && !outbox.closed {
                outbox.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut outbox.bytes, &mut bytes);
            Poll::Ready(!bytes.is_empty())
        });
        if !more.await {
            return;
        }
        let (result, written) = stream.write_all(bytes).await;
        if result.is_err() {
            return;
        }
        bytes = written;
        bytes.clear();
    }
}
