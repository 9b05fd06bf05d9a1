//! A packet device that reads one capture file and writes another (draft-ietf-opsawg-pcap, the classic format).
//!
//! For checking the path against golden packets: it reads the whole input when it is opened, and writes with ordinary
//! file calls.

use super::memory::{Counters, MemoryFrame, MemoryMonitor, MemoryPools, sendable};
use super::{DeviceConfig, OpenDevice};
use crate::base::Mac;
use crate::path::port::{Burst, Frame, Pool, Port, PortCaps};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Time stamps in microseconds, and in nanoseconds.
const MAGIC_MICROS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOS: u32 = 0xa1b2_3c4d;
/// The first bytes of a pcapng file, which is another format.
const MAGIC_PCAPNG: u32 = 0x0a0d_0d0a;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Why a capture file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// Not `pcap:IN:OUT`.
    #[error("`{0}` names no capture files: write `pcap:IN:OUT`")]
    Name(String),
    /// A file that is written and used otherwise, too.
    #[error("{path}: this capture file is written, and also read or written by {by}: give each its own", path = .path.display())]
    Shared {
        /// The file.
        path: PathBuf,
        /// `the same port` or `another port`.
        by: &'static str,
    },
    /// It has one queue.
    #[error("port {0}: capture files have one queue: use one worker")]
    Queues(String),
    /// The file can't be read or written.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Something else.
    #[error("{path}: not a pcap file (it begins with {magic:#010x})", path = .path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// Its first four bytes.
        magic: u32,
    },
    /// The younger format.
    #[error("{path}: a pcapng file: convert it with `editcap -F pcap`", path = .path.display())]
    Pcapng {
        /// The file.
        path: PathBuf,
    },
    /// Frames of another kind of network.
    #[error("{path}: link type {link_type}, and only Ethernet (1) can be read", path = .path.display())]
    LinkType {
        /// The file.
        path: PathBuf,
        /// See <https://www.tcpdump.org/linktypes.html>.
        link_type: u32,
    },
    /// It ends within a header or a record.
    #[error("{path}: cut off in record {record} (0: the file's header)", path = .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        record: usize,
    },
    /// A frame that fits no buffer.
    #[error("{path}: record {record} has {bytes} bytes, and a buffer holds {most}", path = .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        record: usize,
        /// Its bytes.
        bytes: usize,
        /// Those of a buffer.
        most: usize,
    },
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in seconds since 1970.
    pub seconds: u32,
    /// Micro- or nanoseconds behind them, as the file has them.
    pub fraction: u32,
    /// The frame, as far as it was captured.
    pub bytes: Vec<u8>,
}

/// What a capture file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Whether its time stamps are in nanoseconds.
    pub nanos: bool,
    /// The frames, in the file's order.
    pub records: Vec<Record>,
}

/// Receives the frames of one capture file and writes those sent to another.
#[derive(Debug)]
pub struct PcapPort {
    caps: PortCaps,
    pools: MemoryPools,
    records: Vec<Record>,
    next: usize,
    out: BufWriter<File>,
    path: PathBuf,
    failed: Arc<OnceLock<std::io::Error>>,
    counters: Arc<Counters>,
}

/// What became of a port's output; it outlives the port.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
    failed: Arc<OnceLock<std::io::Error>>,
}

impl Output {
    /// Whether all frames sent so far were written; final when the port is dropped.
    ///
    /// # Errors
    /// The first error of all writes.
    pub fn result(&self) -> Result<(), PcapError> {
        let Some(error) = self.failed.get() else { return Ok(()) };
        // An error can't be copied, but its number or its text can.
        let copy = error.raw_os_error().map(std::io::Error::from_raw_os_error);
        let error = copy.unwrap_or_else(|| std::io::Error::new(error.kind(), error.to_string()));
        Err(PcapError::Io { path: self.path.clone(), error })
    }
}

impl Drop for PcapPort {
    fn drop(&mut self) {
        if self.failed.get().is_none()
            && let Err(error) = self.out.flush()
        {
            self.fail(error);
        }
    }
}

impl PcapPort {
    /// Reads all of `input` and begins `output`.
    ///
    /// # Errors
    /// If either file can't be used.
    pub fn new(input: &Path, output: &Path, caps: PortCaps, pools: MemoryPools) -> Result<Self, PcapError> {
        let data = std::fs::read(input).map_err(|error| PcapError::Io { path: input.into(), error })?;
        let capture = parse(input, &data, pools.data.bytes())?;
        let begin = || {
            let mut out = BufWriter::new(File::create(output)?);
            out.write_all(&file_header(capture.nanos))?;
            Ok(out)
        };
        let out = begin().map_err(|error| PcapError::Io { path: output.into(), error })?;
        let (records, path) = (capture.records, output.to_owned());
        Ok(Self {
            caps,
            pools,
            records,
            next: 0,
            out,
            path,
            failed: Arc::default(),
            counters: Arc::default(),
        })
    }

    /// Whether all frames of the input were received.
    pub fn exhausted(&self) -> bool {
        self.next == self.records.len()
    }

    /// Completes the output.
    ///
    /// # Errors
    /// The first one of all writes.
    pub fn finish(self) -> Result<(), PcapError> {
        let output = self.output();
        drop(self);
        output.result()
    }

    /// What becomes of its output.
    pub fn output(&self) -> Output {
        Output { path: self.path.clone(), failed: self.failed.clone() }
    }

    fn fail(&self, error: std::io::Error) {
        // The first error is the one that counts, and nothing is written after it.
        let _ = self.failed.set(error);
    }

    /// Its buffers.
    pub fn pools(&self) -> &MemoryPools {
        &self.pools
    }

    fn write(&mut self, frame: &[u8]) -> std::io::Result<()> {
        // There is no clock here: an answer has the time of the last frame received.
        let last = self.next.checked_sub(1).and_then(|i| self.records.get(i));
        let (seconds, fraction) = last.map_or((0, 0), |r| (r.seconds, r.fraction));
        self.out.write_all(&record_header(seconds, fraction, frame.len()))?;
        self.out.write_all(frame)
    }
}

/// The files of a device `pcap:IN:OUT`: what it reads, and what it writes. None of another device.
pub fn files(device: &str) -> Option<(&Path, &Path)> {
    let (input, output) = device.strip_prefix("pcap:")?.split_once(':')?;
    (!input.is_empty() && !output.is_empty()).then(|| (Path::new(input), Path::new(output)))
}

/// Whether no file that one of `devices` writes is used by it or another device otherwise. Files are told apart by what
/// they are, not by name; what is no ordinary file (`/dev/null`) may be shared.
///
/// # Errors
/// The index of the first device that writes such a file, and [`PcapError::Shared`].
pub fn distinct<'a>(devices: impl Iterator<Item = &'a str>) -> Result<(), (usize, PcapError)> {
    let all: Vec<Option<(&Path, &Path)>> = devices.map(files).collect();
    let same = |a: &Path, b: &Path| identity(a).is_some_and(|a| Some(a) == identity(b));
    for (i, device) in all.iter().enumerate() {
        let Some((input, output)) = *device else { continue };
        let shared = |by| Err((i, PcapError::Shared { path: output.to_owned(), by }));
        if same(input, output) {
            return shared("the same port");
        }
        let mut others = all.iter().enumerate().filter(|(j, _)| *j != i).filter_map(|(_, other)| *other);
        if others.any(|(read, written)| same(read, output) || same(written, output)) {
            return shared("another port");
        }
    }
    Ok(())
}

/// What tells a file from others: its device and inode, or, before it exists, its full name. None if it is not to be told apart.
fn identity(path: &Path) -> Option<(u64, u64, PathBuf)> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        // Hard links have several full names.
        Ok(found) => found.is_file().then(|| (found.dev(), found.ino(), PathBuf::new())),
        Err(_) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let parent = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
            Some((0, 0, parent.join(path.file_name()?)))
        }
    }
}

/// Opens a `pcap:IN:OUT` device as configured.
///
/// # Errors
/// If it has more than one queue, or a file can't be used.
pub fn open(config: &DeviceConfig, mac: Mac, pools: MemoryPools) -> Result<OpenDevice<PcapPort>, PcapError> {
    if config.queues != 1 {
        return Err(PcapError::Queues(config.name.clone()));
    }
    let Some((input, output)) = files(&config.device) else {
        return Err(PcapError::Name(config.device.clone()));
    };
    let caps = PortCaps { mac, mtu: config.mtu };
    let port = PcapPort::new(input, output, caps, pools)?;
    let monitor = MemoryMonitor { queues: vec![port.counters.clone()] };
    Ok(OpenDevice { queues: vec![port], monitor: Box::new(monitor) })
}

impl Port for PcapPort {
    type Frame = MemoryFrame;

    fn caps(&self) -> &PortCaps {
        &self.caps
    }

    fn rx(&mut self, into: &mut Burst<MemoryFrame>) -> usize {
        let (mut n, mut bytes, mut no_buffer) = (0, 0, 0);
        while !into.is_full() && !self.exhausted() {
            let Some(frame) = self.pools.data.frame(&self.records[self.next].bytes) else {
                no_buffer = 1;
                break;
            };
            self.next += 1;
            n += 1;
            bytes += frame.len();
            into.push(frame);
        }
        self.counters.received(n, bytes, no_buffer);
        n
    }

    fn tx(&mut self, from: &mut Burst<MemoryFrame>) -> usize {
        let (mut sent, mut bytes, mut refused) = (0, 0, 0);
        for frame in from.drain(..) {
            if self.failed.get().is_some() || !sendable(&self.caps, frame.len()) {
                refused += 1;
                continue;
            }
            match self.write(frame.head()) {
                Ok(()) => {
                    sent += 1;
                    bytes += frame.len();
                }
                Err(error) => {
                    self.fail(error);
                    refused += 1;
                }
            }
        }
        self.counters.sent(sent, bytes, refused);
        refused
    }

    fn alloc(&mut self, pool: Pool) -> Option<MemoryFrame> {
        self.pools.alloc(pool)
    }
}

/// Takes a capture file apart: `data` is what it holds, `most` the bytes that a buffer holds.
///
/// # Errors
/// [`PcapError`], with `path` in it: not a capture of Ethernet frames, cut off, or with a frame that fits no buffer.
pub fn parse(path: &Path, data: &[u8], most: usize) -> Result<Capture, PcapError> {
    let path = || path.to_owned();
    let truncated = |record| PcapError::Truncated { path: path(), record };
    let first = data.first_chunk::<4>().ok_or_else(|| truncated(0))?;
    let (big, nanos) = match (u32::from_le_bytes(*first), u32::from_be_bytes(*first)) {
        (MAGIC_MICROS, _) => (false, false),
        (MAGIC_NANOS, _) => (false, true),
        (_, MAGIC_MICROS) => (true, false),
        (_, MAGIC_NANOS) => (true, true),
        (MAGIC_PCAPNG, _) => return Err(PcapError::Pcapng { path: path() }),
        (_, magic) => return Err(PcapError::Magic { path: path(), magic }),
    };
    let word = |header: &[u8], at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    let header = data.get(..FILE_HEADER).ok_or_else(|| truncated(0))?;
    // The upper half of the field says whether frames end with a check sequence.
    let link_type = word(header, 20) & 0xffff;
    if link_type != ETHERNET {
        return Err(PcapError::LinkType { path: path(), link_type });
    }
    let mut rest = &data[FILE_HEADER..];
    let mut records = Vec::new();
    while !rest.is_empty() {
        let record = records.len() + 1;
        let (header, behind) = rest.split_at_checked(RECORD_HEADER).ok_or_else(|| truncated(record))?;
        let bytes = word(header, 8) as usize;
        if bytes > most {
            return Err(PcapError::TooLong { path: path(), record, bytes, most });
        }
        let (frame, behind) = behind.split_at_checked(bytes).ok_or_else(|| truncated(record))?;
        records.push(Record { seconds: word(header, 0), fraction: word(header, 4), bytes: frame.to_vec() });
        rest = behind;
    }
    Ok(Capture { nanos, records })
}

/// The header of a file in little-endian order: version 2.4, any length of frame, Ethernet.
pub fn file_header(nanos: bool) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    let magic = if nanos { MAGIC_NANOS } else { MAGIC_MICROS };
    header[..4].copy_from_slice(&magic.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&262_144u32.to_le_bytes());
    header[20..24].copy_from_slice(&ETHERNET.to_le_bytes());
    header
}

/// What stands before a frame of `bytes` in such a file, none of which was cut off: its time stamp and its length.
pub fn record_header(seconds: u32, fraction: u32, bytes: usize) -> [u8; RECORD_HEADER] {
    let mut header = [0; RECORD_HEADER];
    for (field, word) in header.chunks_exact_mut(4).zip([seconds, fraction, bytes as u32, bytes as u32]) {
        field.copy_from_slice(&word.to_le_bytes());
    }
    header
}

#[cfg(test)]
#[path = "pcap_tests.rs"]
mod tests;
