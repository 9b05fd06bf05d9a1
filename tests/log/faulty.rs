//! A disk as it may be: what was not synced is lost with the process, and what is being synced is written in any order. With
//! the fault that the torture must find, it says that it has synced long before it has.

use redb::StorageBackend;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use steerage::base::rng::Rng;

/// Whether a sync means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Honesty {
    /// It does.
    Honest,
    /// What is synced reaches the disk this many syncs later.
    Lying(usize),
}

/// Writes between two syncs.
#[derive(Debug, Default)]
struct Generation {
    writes: Vec<(u64, Vec<u8>)>,
    length: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// The file as its user sees it.
    seen: Vec<u8>,
    open: Generation,
    claimed: VecDeque<Generation>,
    rng: Rng,
}

#[derive(Debug)]
pub struct Faulty {
    file: File,
    late: usize,
    room: u64,
    state: Mutex<State>,
}

impl Faulty {
    /// With `room`, nothing can be written behind so many bytes.
    pub fn open(path: &Path, honesty: Honesty, room: Option<usize>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut seen = vec![0; usize::try_from(file.metadata()?.len()).unwrap()];
        file.read_exact_at(&mut seen, 0)?;
        let state = State {
            seen,
            open: Generation::default(),
            claimed: VecDeque::new(),
            rng: Rng::new(u64::from(std::process::id())),
        };
        let late = match honesty {
            Honesty::Honest => 0,
            Honesty::Lying(late) => late,
        };
        let room = room.map_or(u64::MAX, |room| room as u64);
        Ok(Self { file, late, room, state: Mutex::new(state) })
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.seen.resize(usize::try_from(len).unwrap(), 0);
        state.open.length = Some(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let open = std::mem::take(&mut state.open);
        state.claimed.push_back(open);
        while state.claimed.len() > self.late {
            let mut now = state.claimed.pop_front().unwrap();
            if let Some(length) = now.length {
                self.file.set_len(length)?;
            }
            // Writes to one place keep their order; a process killed in between leaves a torn sync.
            while !now.writes.is_empty() {
                let chosen = usize::try_from(state.rng.below(now.writes.len() as u64)).unwrap();
                let place = now.writes[chosen].0;
                let first = now.writes.iter().position(|(at, _)| *at == place).unwrap();
                let (at, bytes) = now.writes.remove(first);
                if at + bytes.len() as u64 > self.room {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                self.file.write_all_at(&bytes, at)?;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let place = state.seen.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        place.copy_from_slice(data);
        state.open.writes.push((offset, data.to_vec()));
        Ok(())
    }
}

#[test]
fn what_was_not_synced_or_had_no_room_is_lost() {
    let path = std::env::temp_dir().join(format!("steerage-faulty-{}", std::process::id()));
    let write = |disk: &Faulty, byte: u8| {
        disk.set_len(4096).unwrap();
        disk.write(10, &[byte; 5]).unwrap();
    };
    let seen = |honesty| {
        let disk = Faulty::open(&path, honesty, None).unwrap();
        let mut byte = [0];
        disk.read(12, &mut byte).unwrap();
        byte[0]
    };
    let disk = Faulty::open(&path, Honesty::Honest, None).unwrap();
    write(&disk, 1);
    disk.sync_data().unwrap();
    write(&disk, 2);
    drop(disk);
    assert_eq!(seen(Honesty::Honest), 1);
    let disk = Faulty::open(&path, Honesty::Lying(1), None).unwrap();
    write(&disk, 3);
    disk.sync_data().unwrap();
    write(&disk, 4);
    disk.sync_data().unwrap();
    drop(disk);
    assert_eq!(seen(Honesty::Honest), 3);
    let disk = Faulty::open(&path, Honesty::Honest, Some(14)).unwrap();
    write(&disk, 5);
    let error = disk.sync_data().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    drop(disk);
    assert_eq!(seen(Honesty::Honest), 3, "there was room for four of the five bytes");
    std::fs::remove_file(&path).unwrap();
}
