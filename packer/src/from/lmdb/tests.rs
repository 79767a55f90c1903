use proptest::prelude::*;

use super::*;
use crate::from::check_path;

#[test]
fn keys_become_names() {
    for (key, name) in [
        (&b"image-000000001"[..], "image-000000001"),
        (b"train/0001.jpg", "train/0001.jpg"),
        ("né".as_bytes(), "né"),
        (b"100%", "100%25"),
        (b"a\0b\n", "a%00b%0A"),
        (b"\xff\xfe", "%FF%FE"),
        ("\u{85}".as_bytes(), "%C2%85"),
        (b"/a", "%2Fa"),
        (b"a//b", "a%2F%2Fb"),
        (b"a/../b", "a%2F..%2Fb"),
        (b".", "%2E"),
        (b"..", "%2E%2E"),
        (b"...", "..."),
    ] {
        assert_eq!(escaped(key), name, "{key:?}");
    }
    for (container, wanted) in [
        ("data.mdb", ""),
        ("x/data.mdb", "x/"),
        ("x/photos.mdb", "x/photos/"),
        ("mydata.mdb", "mydata/"),
        ("odd", "odd/"),
    ] {
        assert_eq!(prefix(container), wanted, "{container}");
    }
    assert!(
        has_name("x/data.mdb") && has_name("a.mdb") && !has_name("x/lock.mdb") && !has_name("a.mdb-lock")
    );
}

#[test]
fn names_have_an_extension() {
    let png = b"\x89PNG\r\n\x1a\n";
    for (key, is_integer, wanted) in [
        (&b"image-1"[..], false, "image-1.png"),
        (b"a.b/c", false, "a.b/c.png"),
        (b"a/c.PNG", false, "a/c.PNG"),
        (&[1, 2, 0, 0], true, "0000000513.png"),
        (&[0, 0, 0, 0, 1, 0, 0, 0], true, "4294967296.png"),
        (b"odd", true, "odd.png"),
    ] {
        assert_eq!(name(key, is_integer, png), wanted, "{key:?}");
    }
}

proptest! {
    #[test]
    fn names_are_good_and_tell_keys_apart(keys in proptest::collection::btree_set(
        proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.'), Just(b'%')], 1..12), 2..20),
    ) {
        let names: std::collections::BTreeSet<String> = keys.iter().map(|key| escaped(key)).collect();
        prop_assert_eq!(names.len(), keys.len());
        for name in names {
            prop_assert!(check_path(name.as_bytes()).is_ok(), "{}", name);
        }
    }
}
