use crate::system::EXT4;

use super::*;

fn report(samples: &[(&'static str, &[f64])], aim: Aim) -> Report {
    let row = Row::new("create", "files/s", EXT4, aim);
    let head = Head {
        store: "s".into(),
        subject: "t".into(),
        rounds: 3,
        quick: false,
        seed: 1,
        versions: BTreeMap::from([(GRANARY, "granary 1".to_owned())]),
    };
    let mut report = Report::new(head, vec![]);
    for (system, values) in samples {
        values.iter().for_each(|&v| report.add(&row, system, v));
    }
    report.rounds_done = 3;
    report
}

#[test]
fn ratios_are_of_the_same_round() {
    let samples: [(&str, &[f64]); 2] =
        [(EXT4, &[10_000.0, 40_000.0, 20_000.0]), (GRANARY, &[3000.0, 4000.0, 5000.0])];
    let text = report(&samples, Aim::RatioMin(0.2)).markdown();
    let line = "| create | files/s | 20,000 (10,000-40,000) | 4,000 (3,000-5,000) | 0.25 (0.10-0.30) | 0.2 or more: met |";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("# Granary beside a fresh ext4\n") && text.contains("Granary: granary 1."),
        "{text}"
    );
    let text = report(&samples, Aim::RatioMin(0.3)).markdown();
    assert!(text.contains("0.3 or more: **missed**") && !text.contains("JuiceFS"), "{text}");
}

#[test]
fn peers_get_columns_and_values_have_aims() {
    let text = report(&[(GRANARY, &[15.0]), (JUICEFS, &[10_401.0])], Aim::ValueMax(30.0)).markdown();
    assert!(text.contains("| - | 15.0 | - | 30 or less: met | 10,401 | - |"), "{text}");
    let samples: [(&str, &[f64]); 4] =
        [(EXT4, &[2.0]), (GRANARY, &[1.0]), (RCLONE, &[0.5]), (JUICEFS, &[4.0])];
    let text = report(&samples, Aim::None).markdown();
    assert!(text.contains("a fresh ext4, JuiceFS and rclone"), "{text}");
    assert!(text.contains("| aim | JuiceFS | ratio | rclone | ratio |"), "{text}");
    assert!(text.contains("| 2.00 | 1.00 | 0.50 | - | 4.00 | 2.00 | 0.50 | 0.25 |"), "{text}");
}

#[test]
fn aims_against_a_peer_are_of_the_same_round() {
    const BOTH: Aim = Aim::All(&[Aim::RatioMin(0.5), Aim::TimesMin(JUICEFS, 18.0)]);
    let samples: [(&str, &[f64]); 3] = [(EXT4, &[100.0]), (GRANARY, &[60.0]), (JUICEFS, &[4.0])];
    let text = report(&samples, BOTH).markdown();
    assert!(text.contains("0.5 or more: met; 18 times JuiceFS or more: **missed**"), "{text}");
    assert!(report(&samples[..2], BOTH).markdown().contains("18 times JuiceFS or more |"));
    assert!(report(&samples, Aim::Below(JUICEFS)).markdown().contains("below JuiceFS: **missed**"));
    assert!(report(&samples, Aim::ValueMin(50.0)).markdown().contains("50 or more: met"));
}

#[test]
fn everything_is_written_and_notes_are_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut report = report(&[(EXT4, &[2.0]), (GRANARY, &[1.0])], Aim::None);
    report.note("s3fs is left out: no.".into());
    report.note("s3fs is left out: no.".into());
    report.write(&dir.path().join("out")).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("out").join(name)).unwrap();
    assert_eq!(read("report.md").matches("* s3fs is left out: no.").count(), 1);
    let json: serde_json::Value = serde_json::from_str(&read("samples.json")).unwrap();
    assert_eq!(json["rows"][0]["samples"]["granary"][0], 1.0);
    assert_eq!(json["versions"]["granary"], "granary 1");
    assert_eq!(json["notes"][0], "s3fs is left out: no.");
    assert!(read("ratios.svg").starts_with("<svg"));
    assert!(!dir.path().join("out/throughput.svg").exists(), "nothing of it is MB/s");
}
