//! The node's end of lending, without a loader: what is asked, and the descriptors that come.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use granary_loader::node::pass;
use granary_loader::node::wire::{
    ANSWER_FRAME_BYTES_MAX, Answer, Ask, LENGTH_BYTES, PATH, PROTOCOL, Question, Said, frame_bytes,
};

pub struct Asking(UnixStream);

impl Asking {
    pub fn start(socket: &Path, root: &str) -> Asking {
        let mut stream = UnixStream::connect(socket).expect("the node listens");
        write!(
            stream,
            "GET {PATH}?root={root} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: {PROTOCOL}\r\n\r\n"
        )
        .expect("ask");
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "{}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Asking(stream)
    }

    /// What is said, the descriptors, and the bytes that are not lent.
    pub fn ask(&mut self, ask: Ask) -> (Said, Vec<OwnedFd>, Vec<u8>) {
        let frame = Question { number: 5, ask }.encode(1).expect("a question");
        self.0.write_all(&frame).expect("the node listens");
        let mut descriptors = VecDeque::new();
        let mut take = |len: usize| {
            let mut bytes = vec![0; len];
            let mut done = 0;
            while done < len {
                let got = pass::receive(&self.0, &mut bytes[done..], &mut descriptors).expect("an answer");
                assert!(got > 0, "the node closed the connection");
                done += got;
            }
            bytes
        };
        let mut frame = take(LENGTH_BYTES);
        let length = frame[..].try_into().expect("four bytes");
        frame.extend(take(frame_bytes(length, ANSWER_FRAME_BYTES_MAX).expect("a length")));
        let answer = Answer::decode(&frame).expect("an answer");
        assert_eq!(answer.number, 5);
        let inline = take(answer.brings().1);
        assert_eq!(answer.brings().0, descriptors.len());
        (answer.said, descriptors.into(), inline)
    }
}
