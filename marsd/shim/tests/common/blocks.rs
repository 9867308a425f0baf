//! Direct I/O on the device, random writes against a model, and a small random generator.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes at an address fit for direct I/O.
pub struct Aligned {
    raw: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub fn new(len: usize) -> Self {
        let raw = vec![0u8; len + 4096];
        let start = raw.as_ptr().align_offset(4096);
        Self { raw, start, len }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.raw[self.start..self.start + self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.raw[self.start..self.start + self.len]
    }
}

pub fn open_direct(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(0o40000) // O_DIRECT
        .open(path)
        .unwrap()
}

pub fn write_at(file: &File, offset: u64, data: &[u8]) -> std::io::Result<()> {
    let mut buffer = Aligned::new(data.len());
    buffer.bytes_mut().copy_from_slice(data);
    file.write_all_at(buffer.bytes(), offset)
}

pub fn read_at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut buffer = Aligned::new(len);
    file.read_exact_at(buffer.bytes_mut(), offset).unwrap();
    buffer.bytes().to_vec()
}

/// The whole content, read with direct I/O.
pub fn content(path: &Path, size: u64) -> Vec<u8> {
    let file = open_direct(path);
    let step = 1 << 20;
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        let len = step.min(size - all.len() as u64);
        all.extend(read_at(
            &file,
            all.len() as u64,
            usize::try_from(len).unwrap(),
        ));
    }
    all
}

/// First difference, told in few words.
pub fn assert_same(got: &[u8], expect: &[u8], what: &str) {
    assert_eq!(got.len(), expect.len(), "{what}: length");
    if let Some(at) = got.iter().zip(expect).position(|(a, b)| a != b) {
        let sectors = got
            .chunks(512)
            .zip(expect.chunks(512))
            .filter(|(a, b)| a != b)
            .count();
        panic!(
            "{what}: byte {at} is {} instead of {}; {sectors} sectors differ",
            got[at], expect[at]
        );
    }
}

/// xorshift: the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A range of sectors inside `size`: mostly small, sometimes large, often overlapping others.
    pub fn range(&mut self, size: u64) -> (u64, usize) {
        let sectors = match self.below(10) {
            0 => 1 + self.below(512),
            1..=3 => 1 + self.below(40),
            _ => 1 + self.below(9),
        };
        let offset = self.below(size / 512 - sectors) * 512;
        (offset, usize::try_from(sectors * 512).unwrap())
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        out
    }
}

/// One random write to the device and to the model.
pub fn random_write(file: &File, model: &mut [u8], random: &mut Random) {
    random_write_from(0, file, model, random);
}

/// The same for a model of the part of the device that begins at `base`.
pub fn random_write_from(base: u64, file: &File, model: &mut [u8], random: &mut Random) {
    let (offset, len) = random.range(model.len() as u64);
    let data = random.bytes(len);
    write_at(file, base + offset, &data).unwrap();
    let at = usize::try_from(offset).unwrap();
    model[at..at + len].copy_from_slice(&data);
}

/// One random read, compared with the model.
pub fn random_read(file: &File, model: &[u8], random: &mut Random) {
    let (offset, len) = random.range(model.len() as u64);
    let at = usize::try_from(offset).unwrap();
    let got = read_at(file, offset, len);
    assert_same(&got, &model[at..at + len], "read");
}
