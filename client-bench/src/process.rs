//! Other processes that a measurement needs: this tool again in another role, a server, Redis.

use crate::machine;
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long a process may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with its owner.
pub struct Helper {
    child: Child,
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Helper {
    /// Starts `command`, on `core` if one is given.
    ///
    /// # Errors
    /// There is no such program.
    pub fn start(mut command: Command, core: Option<usize>) -> Result<Helper> {
        let program = command.get_program().to_string_lossy().into_owned();
        // A child runs where its parent does at that moment.
        let here = machine::cores()?;
        if let Some(core) = core {
            machine::pin(core)?;
        }
        let child = command.spawn().with_context(|| format!("cannot start {program}"));
        machine::pin_to(&here)?;
        Ok(Helper { child: child? })
    }

    /// Starts this program with `arguments`, and reads the line in which it says where it
    /// listens.
    pub fn role(arguments: &[&str], core: Option<usize>) -> Result<(Helper, SocketAddr)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut helper = Helper::start(command, core)?;
        let mut line = String::new();
        helper.stdout()?.read_line(&mut line)?;
        let address =
            line.trim().parse().with_context(|| format!("{arguments:?} said {line:?}"))?;
        Ok((helper, address))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output; to be asked for once.
    pub fn stdout(&mut self) -> Result<BufReader<ChildStdout>> {
        Ok(BufReader::new(self.child.stdout.take().context("its output is read elsewhere")?))
    }

    /// Its input; to be asked for once.
    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("its input is written elsewhere")
    }

    /// How it ended, for it says nothing any more.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// # Errors
    /// The process ended.
    pub fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("a process that should still run ended: {status}"),
        }
    }

    /// Waits until something listens at `address`.
    ///
    /// # Errors
    /// The process ended, or takes too long.
    pub fn until_listening(&mut self, address: SocketAddr) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            self.still_runs()?;
            if begun.elapsed() > START_PATIENCE {
                bail!("nothing listens at {address}");
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the process ended badly: {status}"),
                None if begun.elapsed() > START_PATIENCE => bail!("the process does not end"),
                None => sleep(Duration::from_millis(5)),
            }
        }
    }
}

/// A loopback address that nobody listens at just now.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
