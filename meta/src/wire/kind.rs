//! Kinds of errors as numbers, for ever.

use granary_core::{Error, Kind};

use super::pb;

const KINDS: [(u32, Kind); 30] = [
    (1, Kind::NotFound),
    (2, Kind::Exists),
    (3, Kind::NotEmpty),
    (4, Kind::NotDirectory),
    (5, Kind::IsDirectory),
    (6, Kind::Access),
    (7, Kind::Permission),
    (8, Kind::Invalid),
    (9, Kind::NameTooLong),
    (10, Kind::FileTooLarge),
    (11, Kind::Unsupported),
    (12, Kind::Stale),
    (13, Kind::Busy),
    (14, Kind::Unavailable),
    (15, Kind::Denied),
    (16, Kind::NoSpace),
    (17, Kind::QuotaExceeded),
    (18, Kind::ReadOnly),
    (19, Kind::TooManyLinks),
    (20, Kind::CrossNamespace),
    (21, Kind::NoAttribute),
    (22, Kind::Range),
    (23, Kind::Corrupt),
    (24, Kind::Io),
    (25, Kind::Interrupted),
    (26, Kind::WouldBlock),
    (27, Kind::Deadlock),
    (28, Kind::Fenced),
    (29, Kind::Bug),
    (30, Kind::Executed),
];

pub fn number(kind: Kind) -> u32 {
    KINDS.iter().find(|(_, k)| *k == kind).map_or(29, |(n, _)| *n)
}

/// A number of a newer program is an I/O error here: its message still says what happened.
pub fn kind(number: u32) -> Kind {
    KINDS.iter().find(|(n, _)| *n == number).map_or(Kind::Io, |(_, k)| *k)
}

pub fn encode(error: &Error) -> pb::Failure {
    let mut message = error.to_string();
    if message.len() > super::bounds::LONG_TEXT_BYTES_MAX {
        let mut end = super::bounds::LONG_TEXT_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    pb::Failure { kind: number(error.kind()), message }
}

pub fn decode(failure: pb::Failure) -> Error {
    Error::new(kind(failure.kind), failure.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        for (i, (n, k)) in KINDS.iter().enumerate() {
            assert_eq!((number(*k), kind(*n)), (*n, *k));
            assert_eq!(*n as usize, i + 1);
        }
        // The last of the enum: a kind that is added must be added here too.
        assert_eq!(Kind::Bug as usize + 1, KINDS.len());
        assert_eq!(kind(1000), Kind::Io);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = Error::new(Kind::Busy, "ü".repeat(20_000));
        let short = decode(encode(&long));
        assert_eq!(short.kind(), Kind::Busy);
        assert!(short.to_string().len() <= super::super::bounds::LONG_TEXT_BYTES_MAX);
    }
}
