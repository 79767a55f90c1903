use proptest::prelude::*;

use super::*;

fn shards() -> impl Strategy<Value = Vec<Shard>> {
    let one = (1..30u32, any::<u64>(), any::<u32>(), proptest::collection::vec(0..30u32, 0..20));
    proptest::collection::vec(one, 0..8).prop_map(|all| {
        let shard = |(n, (samples, bytes, index_crc32c, dead)): (usize, (u32, u64, u32, Vec<u32>))| Shard {
            path: format!("shards/{n:06}.tar"),
            bytes: bytes >> 20,
            files: 2 * samples,
            samples,
            index_bytes: 64,
            index_crc32c,
            // Two files a sample: both die with it, and the first of the one after it.
            dead_files: Runs::from_numbers(
                dead.iter().filter(|&&d| d < samples).flat_map(|&d| [2 * d, 2 * d + 1]),
            ),
            dead_samples: Runs::from_numbers(dead.into_iter().filter(|&d| d < samples)),
        };
        all.into_iter().enumerate().map(shard).collect()
    })
}

fn manifest(shards: Vec<Shard>) -> Manifest {
    Manifest::new(7, [0xab; 16], Grouping::Stem, "a \"note\"\n", shards).unwrap()
}

proptest! {
    #[test]
    fn what_is_written_is_read(shards in shards(), at: prop::sample::Index, bit in 0..8u8) {
        let manifest = manifest(shards);
        let mut bytes = manifest.encode().unwrap();
        prop_assert_eq!(&Manifest::decode(&bytes).unwrap(), &manifest);
        let at = at.index(bytes.len());
        prop_assert!(Manifest::decode(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(Manifest::decode(&bytes).is_err());
    }

    #[test]
    fn living_samples_are_numbered_densely(shards in shards()) {
        let manifest = manifest(shards);
        let mut number = 0;
        for (s, shard) in (0u32..).zip(manifest.shards()) {
            prop_assert_eq!(manifest.samples_before(s), Some(number));
            for sample in 0..shard.samples {
                let dead = shard.dead_samples.contains(sample);
                prop_assert_eq!(manifest.sample_number(s, sample), (!dead).then_some(number));
                if !dead {
                    prop_assert_eq!(manifest.locate_sample(number), Some((s, sample)));
                    number += 1;
                }
            }
        }
        prop_assert_eq!(manifest.sample_count(), number);
        prop_assert_eq!(manifest.locate_sample(number), None);
        prop_assert_eq!(manifest.file_count(), 2 * number);
    }

    /// With a matching checksum, as somebody who means harm would write it.
    #[test]
    fn hostile_manifests_are_refused(shards in shards(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let bytes = manifest(shards).encode().unwrap();
        let end = bytes[..bytes.len() - 1].iter().rposition(|&b| b == b'\n').unwrap() + 1;
        let mut bytes = bytes[..end].to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let tail = format!("{{\"crc32c\":\"{:08x}\"}}\n", granary_core::crc32c(&bytes));
        bytes.extend_from_slice(tail.as_bytes());
        if let Ok(manifest) = Manifest::decode(&bytes) {
            let _ = (manifest.locate_sample(0), manifest.digest(), manifest.file_count());
        }
    }
}

fn shard(path: &str) -> Shard {
    Shard {
        path: path.to_owned(),
        bytes: 2048,
        files: 3,
        samples: 2,
        index_bytes: 64,
        index_crc32c: 0xdead_beef,
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    }
}

#[test]
fn the_bytes_are_as_documented() {
    let deleted = Shard {
        dead_samples: Runs::from_numbers([1]),
        dead_files: Runs::from_numbers([2]),
        ..shard("shards/000000.tar")
    };
    let text = String::from_utf8(manifest(vec![deleted]).encode().unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with(r#"{"granary":"data set","format":1,"version":7,"data_set":"abababab"#),
        "{text}"
    );
    assert_eq!(
        lines[1],
        r#"{"path":"shards/000000.tar","bytes":2048,"files":3,"samples":2,"index_bytes":64,"index_crc32c":"deadbeef","dead_samples":[[1,1]],"dead_files":[[2,1]]}"#
    );
    assert!(lines[2].starts_with(r#"{"crc32c":""#));
}

#[test]
fn what_cannot_be_is_refused() {
    let new = |shards| Manifest::new(1, [0; 16], Grouping::Stem, "", shards);
    for (bad, why) in [
        (vec![shard("a.tar"), shard("a.tar")], "twice"),
        (vec![shard("a.tar"), shard("a")], "twice"),
        (vec![shard("../a.tar")], "path cannot be"),
        (vec![Shard { samples: 4, ..shard("a.tar") }], "more samples than files"),
        (vec![Shard { dead_samples: Runs::from_numbers([2]), ..shard("a.tar") }], "not in it"),
        (vec![Shard { dead_files: Runs::from_numbers([0, 1, 2]), ..shard("a.tar") }], "living samples"),
    ] {
        let e = new(bad).unwrap_err();
        assert!(e.kind() == Kind::Invalid && e.to_string().contains(why), "{e}");
    }
    assert_eq!(Manifest::new(0, [0; 16], Grouping::Stem, "", vec![]).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_newer_format_is_refused_with_the_mend() {
    let text = "{\"granary\":\"data set\",\"format\":2,\"other\":true}\n";
    let e = Manifest::decode(text.as_bytes()).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("newer granary"), "{e}");
}

#[test]
fn digests_tell_content_apart_and_nothing_else() {
    let one = manifest(vec![shard("a.tar"), shard("b.tar")]);
    assert_eq!(one.digest(), one.next("another note", one.shards().to_vec()).unwrap().digest());
    let mut other = vec![shard("a.tar"), shard("b.tar")];
    other[1].index_crc32c ^= 1;
    assert_ne!(one.digest(), manifest(other).digest());
    assert_ne!(one.digest(), manifest(vec![shard("b.tar"), shard("a.tar")]).digest());
}
