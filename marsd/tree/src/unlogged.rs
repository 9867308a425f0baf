//! The file `.unlogged`: keeps durably which regions of the device were written past the logs.
//!
//! It stands beside the logs, is made with all its blocks while there is room, and afterwards only overwritten in
//! place: a full file system is a main reason for pass-through. Whoever serves the device owns it; marsd
//! changes it only while nobody does (`symlink-spec.md` section 8.6).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mars_core::unlogged::{BLOCK_LEN, Block, Damage, Header, Regions, block_of, map_blocks};

use crate::error::TreeError;

const SUM: fn(&[u8]) -> u32 = crc_fast::crc32_iscsi;

/// Path of the map beside the logs in `dir`.
pub fn unlogged_path(dir: &Path) -> PathBuf {
    dir.join(".unlogged")
}

/// The open map.
#[derive(Debug)]
pub struct UnloggedMap {
    file: File,
    path: PathBuf,
    header: Header,
    regions: Regions,
}

impl UnloggedMap {
    /// Opens the map in `dir` and reads all of it; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or something in it is damaged: then nothing of it may be believed.
    pub fn load(dir: &Path) -> Result<Option<Self>, TreeError> {
        let path = unlogged_path(dir);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(TreeError::io("open", &path, e)),
        };
        let read = |n: u64| {
            let mut block: Block = [0; BLOCK_LEN];
            file.read_exact_at(&mut block, n * BLOCK_LEN as u64)
                .map_err(|e| TreeError::io("read", &path, e))?;
            Ok::<Block, TreeError>(block)
        };
        let damaged = |n: u64, why: Damage| {
            let cause = io::Error::other(format!("block {n}: {why}"));
            TreeError::io("believe", &path, cause)
        };
        let header = Header::parse(&read(0)?, SUM).map_err(|why| damaged(0, why))?;
        let len = file
            .metadata()
            .map_err(|e| TreeError::io("read the size of", &path, e))?
            .len();
        if len / BLOCK_LEN as u64 <= map_blocks(header.size_bytes) {
            return Err(damaged(0, Damage::Place));
        }
        let mut regions = Regions::new(header.size_bytes);
        for n in 0..map_blocks(header.size_bytes) {
            regions
                .parse_block(n, &read(n + 1)?, SUM)
                .map_err(|why| damaged(n + 1, why))?;
        }
        Ok(Some(Self {
            file,
            path,
            header,
            regions,
        }))
    }

    /// Makes sure that there is a good map for a device of `size_bytes`, with all the space that it will need.
    ///
    /// One that is damaged or lost cannot be used any more and is replaced by an empty one.
    pub fn prepare(dir: &Path, size_bytes: u64) -> Result<Self, TreeError> {
        if let Ok(Some(mut map)) = Self::load(dir)
            && !map.header.lost
        {
            map.grow(size_bytes)?;
            return Ok(map);
        }
        let temp = dir.join(".unlogged.new");
        let failed = |e| TreeError::io("prepare", &temp, e);
        let made = Self::create(&temp, size_bytes)
            .and_then(|()| fs::rename(&temp, unlogged_path(dir)))
            .and_then(|()| File::open(dir)?.sync_all());
        if made.is_err() {
            // A half-made file would only take the room that is short.
            drop(fs::remove_file(&temp));
        }
        made.map_err(failed)?;
        Self::load(dir)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))
    }

    fn create(path: &Path, size_bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let header = Header {
            size_bytes,
            ..Header::default()
        };
        let regions = Regions::new(size_bytes);
        file.write_all_at(&header.format(SUM), 0)?;
        for n in 0..map_blocks(size_bytes) {
            let at = (n + 1) * BLOCK_LEN as u64;
            file.write_all_at(&regions.format_block(n, SUM), at)?;
        }
        file.sync_all()
    }

    /// What the header says.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The regions noted so far.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// Makes room for a larger device.
    pub fn grow(&mut self, size_bytes: u64) -> Result<(), TreeError> {
        if size_bytes <= self.header.size_bytes {
            return Ok(());
        }
        let had = map_blocks(self.header.size_bytes);
        let mut larger = self.regions.clone();
        larger.grow(size_bytes);
        for n in had..map_blocks(size_bytes) {
            self.write(n + 1, &larger.format_block(n, SUM))?;
        }
        self.file
            .sync_all()
            .map_err(|e| TreeError::io("flush", &self.path, e))?;
        self.regions = larger;
        self.store_header(Header {
            size_bytes,
            ..self.header
        })
    }

    /// From now on writes are noted for the gap `gap`, too.
    pub fn begin(&mut self, gap: u64) -> Result<(), TreeError> {
        if self.header.first_gap != 0 {
            return Ok(());
        }
        self.store_header(Header {
            first_gap: gap,
            ..self.header
        })
    }

    /// Notes regions; when this returns they are on stable storage.
    ///
    /// # Errors
    /// Something could not be noted, or lies behind the end of the map: call [`UnloggedMap::give_up`].
    pub fn note(&mut self, regions: &BTreeSet<u64>) -> Result<(), TreeError> {
        for region in regions {
            if !self.regions.insert(*region) {
                let cause = io::Error::other(format!(
                    "region {region} lies behind the {} bytes of the map",
                    self.header.size_bytes
                ));
                return Err(TreeError::io("note a write in", &self.path, cause));
            }
        }
        let blocks: BTreeSet<u64> = regions.iter().map(|r| block_of(*r)).collect();
        for n in blocks {
            self.write(n + 1, &self.regions.format_block(n, SUM))?;
        }
        self.flush()
    }

    /// Something is not noted: the map is marked, or else removed, so that nobody believes it.
    pub fn give_up(&mut self) -> Result<(), TreeError> {
        let header = Header {
            lost: true,
            ..self.header
        };
        self.store_header(header)
            .or_else(|_| remove_unlogged(&self.path))
    }

    /// Forgets all regions: nobody needs them any more.
    pub fn clear(&mut self) -> Result<(), TreeError> {
        if self.header.first_gap == 0 {
            return Ok(());
        }
        // The order matters: bits that are gone must not be believed for an old gap.
        self.store_header(Header {
            first_gap: 0,
            ..self.header
        })?;
        self.regions.clear();
        for n in 0..map_blocks(self.header.size_bytes) {
            self.write(n + 1, &self.regions.format_block(n, SUM))?;
        }
        self.flush()
    }

    fn store_header(&mut self, header: Header) -> Result<(), TreeError> {
        self.write(0, &header.format(SUM))?;
        self.flush()?;
        self.header = header;
        Ok(())
    }

    fn write(&self, n: u64, block: &Block) -> Result<(), TreeError> {
        self.file
            .write_all_at(block, n * BLOCK_LEN as u64)
            .map_err(|e| TreeError::io("write", &self.path, e))
    }

    fn flush(&self) -> Result<(), TreeError> {
        self.file
            .sync_data()
            .map_err(|e| TreeError::io("flush", &self.path, e))
    }
}

/// Removes a map that cannot be marked as lost; that needs no space.
fn remove_unlogged(path: &Path) -> Result<(), TreeError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::remove_file(path)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(|e| TreeError::io("remove", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ranges(dir: &Path) -> Vec<(u64, u64)> {
        UnloggedMap::load(dir).unwrap().unwrap().regions().ranges()
    }

    #[test]
    fn what_was_noted_is_found_again_also_after_growing_and_a_second_gap() {
        let dir = tempfile::tempdir().unwrap();
        assert!(UnloggedMap::load(dir.path()).unwrap().is_none());
        let mut map = UnloggedMap::prepare(dir.path(), 8 * MIB).unwrap();
        assert!(!map.header().covers(2));
        map.begin(2).unwrap();
        map.note(&[3, 4].into()).unwrap();
        assert_eq!(ranges(dir.path()), [(3 * 65536, 2 * 65536)]);
        let mut again = UnloggedMap::prepare(dir.path(), 4096 * MIB).unwrap();
        again.begin(5).unwrap();
        again.note(&[65535].into()).unwrap();
        let loaded = UnloggedMap::load(dir.path()).unwrap().unwrap();
        assert_eq!(loaded.header().first_gap, 2);
        assert_eq!(loaded.regions().ranges().len(), 2);
        again.clear().unwrap();
        assert_eq!(ranges(dir.path()), []);
        let cleared = UnloggedMap::load(dir.path()).unwrap().unwrap();
        assert!(!cleared.header().covers(9));
    }

    #[test]
    fn damage_is_noticed_anywhere_and_replaced_by_an_empty_map() {
        let dir = tempfile::tempdir().unwrap();
        let mut map = UnloggedMap::prepare(dir.path(), MIB).unwrap();
        map.begin(2).unwrap();
        map.note(&[1].into()).unwrap();
        let path = unlogged_path(dir.path());
        let good = fs::read(&path).unwrap();
        for at in [3, 30, 4090, 4096, 4110, 8191] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            let error = UnloggedMap::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(".unlogged"), "{error}");
        }
        fs::write(&path, &good[..4096]).unwrap();
        assert!(UnloggedMap::load(dir.path()).is_err());
        let fresh = UnloggedMap::prepare(dir.path(), MIB).unwrap();
        assert!(!fresh.header().covers(2) && fresh.regions().ranges().is_empty());
    }

    #[test]
    fn a_map_that_is_too_small_or_given_up_is_worth_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut map = UnloggedMap::prepare(dir.path(), MIB).unwrap();
        map.begin(2).unwrap();
        assert!(map.note(&[16].into()).is_err());
        map.give_up().unwrap();
        let lost = UnloggedMap::load(dir.path()).unwrap().unwrap();
        assert!(lost.header().lost && !lost.header().covers(2));
        drop(UnloggedMap::prepare(dir.path(), MIB).unwrap());
        assert!(
            !UnloggedMap::load(dir.path())
                .unwrap()
                .unwrap()
                .header()
                .lost
        );
    }
}
