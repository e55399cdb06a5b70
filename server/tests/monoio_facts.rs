//! Facts of monoio 0.2.4 that the server leans on, or keeps away from. Should one of these fail
//! after an upgrade, the file it names wants another look.

use monoio::{IoUringDriver, RuntimeBuilder, time::TimeDriver};
use starling_server::net::Watch;
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime: monoio::Runtime<TimeDriver<IoUringDriver>> =
        RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(future)
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

/// Polls a future once, for nobody.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets the ring submit and complete.
async fn pause() {
    monoio::time::sleep(Duration::from_millis(20)).await;
}

/// net/watch.rs: dropping a pending poll loses nothing, so a task may be dropped while it waits.
#[test]
fn a_dropped_poll_takes_no_bytes() {
    block_on(async {
        let (mut server, mut client) = pair();
        let watch = Watch::new(server.as_raw_fd()).unwrap();
        {
            let mut readable = pin!(watch.readable());
            assert!(poll_once(readable.as_mut()).is_pending());
            pause().await;
        }
        client.write_all(b"hello").unwrap();
        watch.readable().await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(server.read(&mut buffer).unwrap(), 5);
    });
}

/// net/readiness.rs: dropping a pending read loses what it had read, so the server never has one.
#[test]
fn a_dropped_read_takes_bytes_with_it() {
    block_on(async {
        use monoio::io::AsyncReadRent;
        let (server, mut client) = pair();
        let mut probe = server.try_clone().unwrap();
        let mut stream = monoio::net::TcpStream::from_std(server).unwrap();
        {
            let mut read = pin!(stream.read(vec![0; 8]));
            assert!(poll_once(read.as_mut()).is_pending());
            pause().await;
            client.write_all(b"hello").unwrap();
            pause().await;
        }
        probe.set_nonblocking(true).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(probe.read(&mut buffer).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

/// net/accept.rs: an accept that was dropped may have accepted; the socket then belongs to
/// nobody, and the peer waits for ever. So the server polls the listener and accepts itself.
#[test]
fn a_dropped_accept_leaks_its_socket() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = monoio::net::TcpListener::from_std(listener).unwrap();
        let client = {
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).is_pending());
            pause().await;
            let client = TcpStream::connect(address).unwrap();
            pause().await;
            client
        };
        assert_eq!(sockets_connected_to(&client), 1);
    });
}

/// Descriptors of this process whose peer is `client`.
fn sockets_connected_to(client: &TcpStream) -> usize {
    let address = client.local_addr().unwrap();
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|&descriptor| {
            // SAFETY: the descriptor is only looked at, and never closed by this.
            let socket = std::mem::ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor) });
            socket.peer_addr().is_ok_and(|peer| peer == address)
        })
        .count()
}

/// shard/mod.rs: a task that wakes itself goes to the front of the queue, before tasks that were
/// ready earlier; so the turn asks for another one in a way of its own.
#[test]
fn a_task_that_wakes_itself_overtakes_the_others() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let (selfish, patient) = (Rc::clone(&order), Rc::clone(&order));
    block_on(async move {
        let mut left = 3;
        monoio::spawn(poll_fn(move |context| {
            selfish.borrow_mut().push("selfish");
            left -= 1;
            if left == 0 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        monoio::spawn(async move { patient.borrow_mut().push("patient") });
        pause().await;
    });
    assert_eq!(*order.borrow(), ["selfish", "selfish", "selfish", "patient"]);
}

/// shard/mod.rs: the main future is polled once after the tasks that were ready, however often
/// they woke it: one turn a batch.
#[test]
fn the_main_future_is_polled_once_after_a_batch_of_tasks() {
    let ran = Rc::new(Cell::new(0));
    let mut seen = Vec::new();
    block_on(poll_fn(|context| {
        seen.push(ran.get());
        if seen.len() > 1 {
            return Poll::Ready(());
        }
        for _ in 0..10 {
            let (ran, turn) = (Rc::clone(&ran), context.waker().clone());
            monoio::spawn(async move {
                ran.set(ran.get() + 1);
                turn.wake_by_ref();
            });
        }
        Poll::Pending
    }));
    assert_eq!(seen, [0, 10]);
}

/// shard/mod.rs: a main future that wakes itself is polled again at once, before the ring and
/// any task; so the turn does not.
#[test]
fn a_main_future_that_wakes_itself_starves_tasks() {
    let ran = Rc::new(Cell::new(false));
    let mut polls = 0;
    block_on(poll_fn(|context| {
        polls += 1;
        if polls == 1 {
            let ran = Rc::clone(&ran);
            monoio::spawn(async move { ran.set(true) });
        }
        if polls == 100 {
            assert!(!ran.get());
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }));
}

/// shard/lingering.rs: shutdown(2) completes a poll that is pending, so that closing from
/// elsewhere ends the task that watches.
#[test]
fn shutting_down_completes_a_pending_poll() {
    block_on(async {
        let (server, _client) = pair();
        let watch = Watch::new(server.as_raw_fd()).unwrap();
        let mut readable = pin!(watch.readable());
        assert!(poll_once(readable.as_mut()).is_pending());
        pause().await;
        assert!(poll_once(readable.as_mut()).is_pending());
        server.shutdown(Shutdown::Both).unwrap();
        readable.await.unwrap();
    });
}

/// shard/pump.rs: the same of a listener, which ends the task that accepts.
#[test]
fn shutting_down_a_listener_completes_a_pending_poll() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let watch = Watch::new(listener.as_raw_fd()).unwrap();
        let mut readable = pin!(watch.readable());
        assert!(poll_once(readable.as_mut()).is_pending());
        pause().await;
        starling_server::net::socket::shut_down(listener.as_fd(), Shutdown::Both);
        readable.await.unwrap();
    });
}

/// net/watch.rs: an eventfd can be watched like a socket, and a watch closes nothing.
#[test]
fn any_descriptor_can_be_watched_and_stays_open() {
    block_on(async {
        let bell = starling_server::mesh::Doorbell::new().unwrap();
        for _ in 0..3 {
            let watch = Watch::new(bell.event().descriptor()).unwrap();
            bell.sleeper().lie_down();
            bell.ring();
            watch.readable().await.unwrap();
            watch.end();
            bell.silence();
        }
    });
}
