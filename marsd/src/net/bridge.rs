//! The process between rsync and marsd: copies stdin and stdout of what rsync takes for its remote shell to a socket.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

/// Connects to `socket` and copies both ways until the other side ends: the whole life of `marsd rsync-bridge SOCKET`.
/// The process should exit when this returns, whatever rsync still wants to say.
///
/// # Errors
/// No connection, or copying failed.
pub fn bridge_main(socket: &Path) -> io::Result<()> {
    let inbound = UnixStream::connect(socket)?;
    let outbound = inbound.try_clone()?;
    thread::Builder::new().name("stdin".into()).spawn(move || {
        // If this fails, the other direction ends too.
        drop(copy(&mut io::stdin().lock(), &mut &outbound));
        drop(outbound.shutdown(Shutdown::Write));
    })?;
    copy(&mut &inbound, &mut io::stdout().lock())
}

/// Copies without waiting for a buffer to fill: rsync's protocol is a dialogue.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                to.write_all(&buffer[..len])?;
                to.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
