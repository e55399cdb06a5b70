//! A pseudo terminal with a screen, and somebody who types at it.

use crate::common::PATIENCE;
use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

const ROWS: NonZero<u16> = NonZero::new(200).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();

/// A command that runs at a terminal of its own.
pub struct Seat {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Shown>>,
}

/// What the command wrote: as it stands on the screen, and byte by byte.
struct Shown {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

impl Seat {
    pub fn take(mut command: Command) -> Seat {
        let (ours, theirs) = open_terminal();
        let end = |file: &OwnedFd| Stdio::from(file.try_clone().unwrap());
        command.stdin(end(&theirs)).stdout(end(&theirs)).stderr(end(&theirs));
        command.env("TERM", "xterm-256color");
        // SAFETY: both calls are async-signal-safe; the terminal is the new process's input.
        unsafe {
            command.pre_exec(|| {
                let taken = libc::setsid() != -1 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                if taken { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        let child = command.spawn().unwrap();
        drop((command, theirs));
        let screen = vt100::Parser::new(ROWS, COLUMNS, 0);
        let shown = Arc::new(Mutex::new(Shown { screen, bytes: Vec::new() }));
        let keys = File::from(ours);
        let (mut output, watched) = (keys.try_clone().unwrap(), shown.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            // When all that had it open have ended, reading a terminal is an error.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                let mut shown = watched.lock().unwrap();
                shown.screen.process(&buffer[..count]);
                shown.bytes.extend_from_slice(&buffer[..count]);
            }
        });
        Seat { child, keys, shown }
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The lines of the screen, without the empty ones and the white space behind each.
    pub fn lines(&self) -> Vec<String> {
        let text = self.shown.lock().unwrap().screen.screen().contents();
        text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(Into::into).collect()
    }

    /// Where typing happens.
    pub fn last_line(&self) -> String {
        self.lines().pop().unwrap_or_default()
    }

    /// Everything that was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.shown.lock().unwrap().bytes.clone()
    }

    /// How many lines have this in them.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Whether the terminal shows what is typed by itself.
    pub fn echoes(&self) -> bool {
        let mut settings = std::mem::MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: the kernel fills the struct it is given; one of zeroes is valid.
        unsafe {
            let got = libc::tcgetattr(self.keys.as_raw_fd(), settings.as_mut_ptr());
            assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
            settings.assume_init().c_lflag & libc::ECHO != 0
        }
    }

    /// Waits until the screen is so.
    pub fn wait_until(&self, what: &str, so: impl Fn(&Seat) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < until, "not: {what}\n{}", self.lines().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a line of the screen has this in it.
    pub fn see(&self, text: &str) {
        self.wait_until(text, |seat| seat.count(text) > 0);
    }

    /// Waits until the command has ended; its screen stays.
    pub fn end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.lines().join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends of a new terminal: ours, and the command's.
fn open_terminal() -> (OwnedFd, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    let (ws_row, ws_col) = (ROWS.get(), COLUMNS.get());
    let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills two numbers and reads a struct, all of which live through the call;
    // the descriptors are new and nobody else's.
    unsafe {
        let opened =
            libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size);
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        for end in [ours, theirs] {
            // Other tests start processes at the same time.
            libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}
