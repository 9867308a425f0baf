//! Runs commands with a deadline and keeps what they print.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::cluster::RunningTime;
use crate::error::{Context, Result, fail};

/// How long a command may take unless said otherwise.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit code; 128 + signal if it was killed.
    pub code: i32,
    /// Standard output and standard error, in the order of writing.
    pub text: String,
}

impl Output {
    /// The text, if the command succeeded.
    ///
    /// # Errors
    /// Command, exit code and output.
    pub fn good(self) -> Result<String> {
        if self.code == 0 {
            Ok(self.text)
        } else {
            Err(fail(format!(
                "`{}` ended with {}: {}",
                self.command,
                self.code,
                self.text.trim_end()
            )))
        }
    }

    /// The text, if the command failed with an exit code of its own.
    ///
    /// # Errors
    /// The command succeeded, or died of a signal.
    pub fn refused(self) -> Result<String> {
        let by_signal = (128..=192).contains(&self.code);
        if self.code != 0 && !by_signal {
            Ok(self.text)
        } else {
            Err(fail(format!(
                "`{}` should have been refused but ended with {}: {}",
                self.command, self.code, self.text
            )))
        }
    }
}

/// Runs a command to its end.
///
/// Its output goes through a file, so that a daemon it leaves behind does not keep the caller waiting.
///
/// # Errors
/// The command cannot be started or does not end before `deadline`.
pub fn run(command: &mut Command, shown: &str, deadline: Duration) -> Result<Output> {
    let mut file = tempfile::tempfile().context("create a file for the output of a command")?;
    let twin = |f: &File| f.try_clone().context("duplicate the output file");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(twin(&file)?)
        .stderr(twin(&file)?)
        .spawn()
        .context(format!("start `{shown}`"))?;
    let status = wait_child(&mut child, deadline);
    file.rewind().context("read the output of a command")?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .context(format!("read the output of `{shown}`"))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some(status) = status.context(format!("wait for `{shown}`"))? else {
        // Best effort: a process in uninterruptible sleep cannot be killed, the error says what happened.
        let _ = child.kill();
        let secs = deadline.as_secs();
        return Err(fail(format!("`{shown}` did not end in {secs} s: {text}")));
    };
    Ok(Output {
        command: shown.into(),
        code: exit_code(status),
        text,
    })
}

/// Waits for a child at most until the deadline; `None` if it still runs.
///
/// # Errors
/// The child cannot be waited for.
pub fn wait_child(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let mut clock = RunningTime::default();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if clock.passed() >= deadline {
            return Ok(None);
        }
        sleep(Duration::from_millis(3));
    }
}

/// Exit code of a finished process; 128 + signal if it was killed.
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs a command of the machine itself and returns its output.
///
/// # Errors
/// The command cannot be started, fails, or takes too long.
pub fn host(args: &[&str]) -> Result<String> {
    let (program, rest) = args.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(rest);
    run(&mut command, &args.join(" "), DEADLINE)?.good()
}
