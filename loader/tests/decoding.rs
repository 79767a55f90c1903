//! Batches of decoded files: the same ones as without, in the same order, whatever the threads and the memory; and what cannot be decoded.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::path::Path;

use bytes::Bytes;
use granary_core::Kind;
use granary_loader::decode::Numbers;
use granary_loader::{Batch, Decode, Loader, OnError, Options, Sample, Source, SourceOptions};
use granary_packer::key::Grouping;
use granary_packer::manifest::{self, Manifest, Runs, Shard};
use granary_packer::shard::{Identity, Writer};
use granary_packer::tar::Entry;

/// Frames of sample `number`.
fn frames(number: u64) -> usize {
    1 + (number as usize * 37) % 400
}

/// A WAV of 16 bits whose numbers are the sample's.
fn wav(number: u64) -> Vec<u8> {
    let data: Vec<u8> = (0..frames(number)).flat_map(|_| (number as i16).to_le_bytes()).collect();
    let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\0\0\0\0\x02\0\x10\0data".to_vec();
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

/// A data set of so many samples, with a `wav` and a `txt` each; the sound of those in `bad` is cut.
fn made(folder: &Path, samples: u64, bad: &[u64]) -> Source {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut writer = Writer::new(Vec::new(), Grouping::Stem, &std::env::temp_dir());
    for number in 0..samples {
        let mut sound = wav(number);
        if bad.contains(&number) {
            sound.pop();
        }
        for (extension, bytes) in [("txt", number.to_string().into_bytes()), ("wav", sound)] {
            let path = format!("{number:06}.{extension}");
            let size = bytes.len() as u64;
            let entry = Entry {
                path: path.as_bytes(),
                target: b"",
                kind: b'0',
                size,
                mode: 0o644,
                mtime: 0,
                uid: 0,
                gid: 0,
            };
            writer.file(&entry, &bytes).unwrap();
        }
    }
    let path = "shards/000000.tar".to_owned();
    let identity = Identity { data_set: [7; 16], number: 0, name: path.clone() };
    let finished = writer.finish(identity).unwrap();
    let shard = Shard {
        path,
        bytes: finished.bytes,
        files: finished.trailer.files,
        samples: finished.trailer.samples,
        index_bytes: finished.index.bytes(),
        index_crc32c: finished.index.crc32c(),
        dead_samples: Runs::default(),
        dead_files: Runs::default(),
    };
    let place = common::folder_place(folder);
    runtime.block_on(async {
        place.put(&shard.path, Bytes::from(finished.out)).await.unwrap();
        let index = finished.index.to_bytes().unwrap().to_vec();
        place.put(&shard.index_path(), Bytes::from(index)).await.unwrap();
        let manifest = Manifest::new(1, [7; 16], Grouping::Stem, "test", vec![shard]).unwrap();
        manifest::write(&place, &manifest).await.unwrap();
    });
    Source::open(folder.to_str().unwrap(), SourceOptions::default()).unwrap()
}

fn as_shorts(source: &Source) -> Source {
    source.with_decode(Some(Decode::from_json(r#"{"wav": {"name": "i16"}}"#).unwrap()))
}

/// The sample's number, as its array says it.
fn says(sample: &Sample) -> u64 {
    let at = sample.find(b"wav").unwrap().unwrap();
    let array = sample.array(at).unwrap();
    let Numbers::I16(numbers) = &array.numbers else { panic!("{array:?}") };
    let number = numbers[0] as u64;
    assert_eq!((array.shape.clone(), array.sample_rate), (vec![frames(number), 1], Some(8000)));
    assert!(numbers.iter().all(|&other| other as u64 == number));
    // What is not to be decoded is as it was.
    let text = sample.find(b"txt").unwrap().unwrap();
    assert!(sample.array(text).is_none());
    assert_eq!(sample.bytes(text).unwrap(), number.to_string());
    number
}

fn epoch(loader: &Loader) -> Vec<Batch> {
    std::iter::from_fn(|| loader.next_batch().unwrap()).collect()
}

fn numbers(batches: &[Batch]) -> Vec<Vec<u64>> {
    batches.iter().map(|batch| batch.samples.iter().map(says).collect()).collect()
}

#[test]
fn batches_are_those_without_decoding_whatever_threads_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let plain = made(folder.path(), 300, &[]);
    let options = Options { batch_samples: 16, seed: 5, ..Options::default() };
    let loader = Loader::new(vec![plain.clone()], options.clone()).unwrap();
    let expected: Vec<Vec<u64>> =
        epoch(&loader).iter().map(|batch| batch.samples.iter().map(Sample::number).collect()).collect();
    assert_eq!(loader.progress_stats().decode_seconds, 0.0);
    for (threads, decoded_bytes_max) in [(1, 1 << 20), (3, 1 << 20), (4, 1 << 30)] {
        let options = Options { threads, decoded_bytes_max, ..options.clone() };
        let loader = Loader::new(vec![as_shorts(&plain)], options).unwrap();
        assert_eq!(numbers(&epoch(&loader)), expected, "{threads} {decoded_bytes_max}");
        assert!(loader.progress_stats().decode_seconds > 0.0);
    }
}

#[test]
fn memory_that_has_room_for_one_batch_only_gives_all() {
    let folder = tempfile::tempdir().unwrap();
    let plain = made(folder.path(), 8000, &[]);
    // A batch has 1.6 MB of float32 numbers, and memory for 1 MiB.
    let source = plain.with_decode(Some(Decode::auto()));
    let options =
        Options { batch_samples: 2000, threads: 2, decoded_bytes_max: 1 << 20, ..Options::default() };
    let loader = Loader::new(vec![source], options).unwrap();
    let batches = epoch(&loader);
    let all: usize = batches.iter().map(|batch| batch.samples.len()).sum();
    assert_eq!((batches.len(), all), (4, 8000));
}

#[test]
fn what_cannot_be_decoded_is_treated_as_what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let bad = [3, 4, 50, 99];
    let source = as_shorts(&made(folder.path(), 100, &bad));
    let with = |on_error| {
        let options = Options { batch_samples: 10, on_error, ..Options::default() };
        Loader::new(vec![source.clone()], options).unwrap()
    };
    let loader = with(OnError::Raise);
    let e = loop {
        match loader.next_batch() {
            Ok(batch) => assert!(batch.is_some()),
            Err(e) => break e,
        }
    };
    let text = e.to_string();
    assert_eq!(e.kind(), Kind::Corrupt);
    assert!(
        text.contains("shards/000000.tar: \"0000") && text.contains("cannot be decoded: damaged WAV"),
        "{text}"
    );

    let loader = with(OnError::Skip);
    let mut got = numbers(&epoch(&loader)).concat();
    got.sort_unstable();
    assert_eq!(got, (0..100).filter(|number| !bad.contains(number)).collect::<Vec<u64>>());
    let stats = loader.progress_stats();
    assert_eq!((stats.skipped, stats.messages.len()), (4, 4));

    let loader = with(OnError::Substitute);
    let batches = epoch(&loader);
    assert!(numbers(&batches).iter().all(|batch| batch.len() == 10));
    assert_eq!(loader.progress_stats().substituted, 4);
}

#[test]
fn a_stand_in_has_numbers_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let source = as_shorts(&made(folder.path(), 10, &[3]));
    let options = Options { batch_samples: 10, on_error: OnError::Substitute, ..Options::default() };
    let batch = Loader::new(vec![source], options).unwrap().next_batch().unwrap().unwrap();
    let start = |sample: &Sample| match &sample.array(1).unwrap().numbers {
        Numbers::I16(all) => all.as_ptr(),
        other => panic!("{other:?}"),
    };
    let mut starts: Vec<_> = batch.samples.iter().map(start).collect();
    starts.sort_unstable();
    starts.dedup();
    assert_eq!((batch.substituted, starts.len()), (1, 10));
}

#[test]
fn samples_by_number_and_files_by_path_are_decoded_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = as_shorts(&made(folder.path(), 100, &[70]));
    assert_eq!(says(&source.sample(17).unwrap()), 17);
    let wanted: Vec<u64> = (0..60).rev().collect();
    let samples = source.read_many(&wanted).unwrap();
    assert_eq!(samples.iter().map(says).collect::<Vec<u64>>(), wanted);
    let (mut sample, at) = source.file(b"000009.wav").unwrap();
    let array = sample.take_array(at).unwrap();
    assert_eq!((array.shape, sample.array(at)), (vec![frames(9), 1], None));
    for e in [source.sample(70).unwrap_err(), source.read_many(&[1, 70]).unwrap_err()] {
        assert!(e.to_string().contains("\"000070.wav\" cannot be decoded"), "{e}");
    }
    // The same data set, opened once, without.
    assert_eq!(source.with_decode(None).sample(70).unwrap().array(1), None);
}
