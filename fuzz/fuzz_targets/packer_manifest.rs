//! Manifests as somebody who means harm would write them: the checksum matches, the rest is anything.
#![no_main]

use granary_packer::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Manifest::decode(data);
    let mut lines = data.to_vec();
    lines.push(b'\n');
    let tail = format!("{{\"crc32c\":\"{:08x}\"}}\n", crc32c::crc32c(&lines));
    lines.extend_from_slice(tail.as_bytes());
    let Ok(manifest) = Manifest::decode(&lines) else { return };
    assert_eq!(Manifest::decode(&manifest.encode().unwrap()).unwrap(), manifest);
    let samples = manifest.sample_count();
    for n in [0, 1, samples / 2, samples.saturating_sub(1)].into_iter().filter(|&n| n < samples) {
        let (shard, sample) = manifest.locate_sample(n).unwrap();
        assert_eq!(manifest.sample_number(shard, sample), Some(n));
    }
    assert_eq!(manifest.locate_sample(samples), None);
    let _ = (manifest.digest(), manifest.file_count());
});
