//! SipHash-2-4 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): the same number for the same key and bytes on
//! every machine and in every release, which the standard library does not promise of its own hashers.
//!
//! It orders shuffled samples, and fingerprints what a shard is planned to hold. Neither needs more than that nobody meets a
//! collision by chance: what decides whether bytes are right is their checksum.

/// A keyed hash that is fed in pieces, as if they were one.
#[derive(Clone, Debug)]
pub struct Sip {
    v: [u64; 4],
    /// Bytes that do not fill a word yet, in the order they came.
    tail: [u8; 8],
    filled: usize,
    len: u64,
}

impl Sip {
    pub fn new(key: [u64; 2]) -> Sip {
        let v = [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ];
        Sip { v, tail: [0; 8], filled: 0, len: 0 }
    }

    pub fn write(&mut self, mut bytes: &[u8]) {
        self.len = self.len.wrapping_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let taken = bytes.len().min(8 - self.filled);
            self.tail[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == 8 {
                self.word(u64::from_le_bytes(self.tail));
                self.filled = 0;
            }
        }
    }

    /// A number with its width, so that two numbers are never taken for one.
    pub fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    pub fn finish(&self) -> u64 {
        let mut hash = self.clone();
        let mut last = [0; 8];
        last[..hash.filled].copy_from_slice(&hash.tail[..hash.filled]);
        last[7] = hash.len as u8;
        hash.word(u64::from_le_bytes(last));
        hash.v[2] ^= 0xff;
        for _ in 0..4 {
            hash.round();
        }
        hash.v[0] ^ hash.v[1] ^ hash.v[2] ^ hash.v[3]
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.v;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }
}

/// 128 bits of two keyed hashes over the same bytes: what tells one plan from another.
#[derive(Clone, Debug)]
pub struct Fingerprint([Sip; 2]);

impl Fingerprint {
    /// `purpose` keeps fingerprints of different things apart.
    pub fn new(purpose: u64) -> Fingerprint {
        Fingerprint([Sip::new([purpose, 1]), Sip::new([purpose, 2])])
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.0.iter_mut().for_each(|hash| hash.write(bytes));
    }

    pub fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    pub fn finish(&self) -> [u8; 16] {
        let mut out = [0; 16];
        for (hash, half) in self.0.iter().zip(out.chunks_exact_mut(8)) {
            half.copy_from_slice(&hash.finish().to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's key: bytes 0 to 15.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    #[test]
    fn the_papers_vectors() {
        let bytes: Vec<u8> = (0..15).collect();
        for (len, hash) in [
            (0, 0x726f_db47_dd0e_0e31_u64),
            (1, 0x74f8_39c5_93dc_67fd),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            let mut sip = Sip::new(KEY);
            sip.write(&bytes[..len]);
            assert_eq!(sip.finish(), hash, "{len}");
        }
    }

    #[test]
    fn pieces_are_as_one() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut whole = Fingerprint::new(7);
        whole.write(&bytes);
        for step in [1, 3, 8, 13] {
            let mut pieces = Fingerprint::new(7);
            bytes.chunks(step).for_each(|piece| pieces.write(piece));
            assert_eq!(pieces.finish(), whole.finish(), "{step}");
        }
        assert_ne!(Fingerprint::new(8).finish(), Fingerprint::new(7).finish());
    }
}
