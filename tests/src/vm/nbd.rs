//! The server's side of the network block device protocol, as much of it as qemu needs: one connection, one disk.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use crate::error::{Context, Result, fail};

const INIT_MAGIC: &[u8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const FIXED_NEWSTYLE: u16 = 1;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
/// The server knows flags, flush and "force unit access".
const EXPORT_FLAGS: u16 = 1 | 4 | 8;
const FORCE_UNIT_ACCESS: u16 = 1;
const OPTION_LEN_MAX: u32 = 4096;
const REQUEST_LEN_MAX: u32 = 32 << 20;

/// What a served disk does. An error of the kind `ConnectionAborted` ends the connection without an answer.
pub(crate) trait Backend {
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
    /// Reads what was written last.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
    /// Writes, into the cache of the disk.
    fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()>;
    /// Makes all that was written durable.
    fn flush(&mut self) -> std::io::Result<()>;
}

/// Serves one connection until the client leaves.
///
/// # Errors
/// The client breaks the protocol, or the connection breaks.
pub(crate) fn serve(stream: &mut UnixStream, disk: &mut impl Backend) -> Result {
    negotiate(stream, disk.size_bytes()).context("negotiate with the client")?;
    let mut data = Vec::new();
    while let Some(request) = Request::receive(stream)? {
        data.resize(usize::try_from(request.len).context("length")?, 0);
        let done = match request.kind {
            0 => disk.read(request.offset, &mut data),
            1 => {
                stream.read_exact(&mut data).context("receive data")?;
                disk.write(request.offset, &data)
            }
            2 => return Ok(()),
            3 => disk.flush(),
            kind => return Err(fail(format!("request {kind} was not offered"))),
        };
        let done = match done {
            Ok(()) if request.flags & FORCE_UNIT_ACCESS != 0 => disk.flush(),
            other => other,
        };
        if matches!(&done, Err(e) if e.kind() == ErrorKind::ConnectionAborted) {
            return Ok(());
        }
        let errno = done.err().map_or(0, |e| e.raw_os_error().unwrap_or(5));
        let mut reply = Vec::with_capacity(16 + data.len());
        reply.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
        reply.extend_from_slice(&errno.to_be_bytes());
        reply.extend_from_slice(&request.handle);
        if request.kind == 0 && errno == 0 {
            reply.extend_from_slice(&data);
        }
        stream.write_all(&reply).context("send a reply")?;
    }
    Ok(())
}

fn negotiate(stream: &mut UnixStream, size_bytes: u64) -> Result {
    stream.write_all(INIT_MAGIC).context("send")?;
    stream.write_all(OPTION_MAGIC).context("send")?;
    stream
        .write_all(&FIXED_NEWSTYLE.to_be_bytes())
        .context("send")?;
    read_array::<4>(stream)?;
    loop {
        if read_array::<8>(stream)? != OPTION_MAGIC {
            return Err(fail("the client sends no option"));
        }
        let option = u32::from_be_bytes(read_array(stream)?);
        let len = u32::from_be_bytes(read_array(stream)?);
        if len > OPTION_LEN_MAX {
            return Err(fail(format!("option {option} is {len} bytes long")));
        }
        let mut data = vec![0; usize::try_from(len).context("length")?];
        stream.read_exact(&mut data).context("receive an option")?;
        if option != OPTION_GO {
            reply_option(stream, option, REPLY_UNSUPPORTED, &[])?;
            continue;
        }
        let mut info = 0u16.to_be_bytes().to_vec();
        info.extend_from_slice(&size_bytes.to_be_bytes());
        info.extend_from_slice(&EXPORT_FLAGS.to_be_bytes());
        reply_option(stream, option, REPLY_INFO, &info)?;
        return reply_option(stream, option, REPLY_ACK, &[]);
    }
}

fn reply_option(stream: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> Result {
    let len = u32::try_from(data.len()).context("length")?;
    let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    for number in [option, kind, len] {
        reply.extend_from_slice(&number.to_be_bytes());
    }
    reply.extend_from_slice(data);
    stream.write_all(&reply).context("answer an option")
}

struct Request {
    flags: u16,
    kind: u16,
    handle: [u8; 8],
    offset: u64,
    len: u32,
}

impl Request {
    /// The next request; None if the client has gone between two requests.
    fn receive(stream: &mut UnixStream) -> Result<Option<Self>> {
        let Ok(magic) = read_array::<4>(stream) else {
            return Ok(None);
        };
        if u32::from_be_bytes(magic) != REQUEST_MAGIC {
            return Err(fail("the client sends no request"));
        }
        let request = Self {
            flags: u16::from_be_bytes(read_array(stream)?),
            kind: u16::from_be_bytes(read_array(stream)?),
            handle: read_array(stream)?,
            offset: u64::from_be_bytes(read_array(stream)?),
            len: u32::from_be_bytes(read_array(stream)?),
        };
        if request.len > REQUEST_LEN_MAX {
            return Err(fail(format!("a request of {} bytes", request.len)));
        }
        Ok(Some(request))
    }
}

fn read_array<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).context("receive")?;
    Ok(bytes)
}
