//! How tonic encodes and decodes frames: as prost does, but a frame's items are counted before memory is spent on them.
//! An item of two bytes on the wire is some hundreds in memory.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::{FRAME_ITEMS_MAX, MALFORMED, pb};

/// Field number of [`pb::ClientFrame`]'s Hello, whose parts are counted too.
const HELLO: u32 = 2;

/// A message whose parts are counted before it is decoded.
pub trait Counted: Message + Default + 'static {
    fn count(_bytes: &[u8]) -> Result<(), Status> {
        Ok(())
    }
}

impl Counted for pb::ClientFrame {
    fn count(bytes: &[u8]) -> Result<(), Status> {
        count_fields(bytes, Some(HELLO))
    }
}

impl Counted for pb::ServerFrame {
    fn count(bytes: &[u8]) -> Result<(), Status> {
        count_fields(bytes, None)
    }
}

impl Counted for pb::HealthRequest {}
impl Counted for pb::HealthAnswer {}

fn damaged(why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{MALFORMED}: {why}"))
}

/// Counts the fields of a message, and those of its field `inner`, of which there may be [`FRAME_ITEMS_MAX`] and some.
fn count_fields(bytes: &[u8], inner: Option<u32>) -> Result<(), Status> {
    let (mut rest, mut left) = (bytes, FRAME_ITEMS_MAX + 16);
    while !rest.is_empty() {
        left = left.checked_sub(1).ok_or_else(|| damaged("it has too many parts"))?;
        let (number, wire_type) = decode_key(&mut rest).map_err(damaged)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(damaged)?;
            continue;
        }
        let len = decode_varint(&mut rest).map_err(damaged)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
        let (head, tail) = rest.split_at(len.ok_or_else(|| damaged("it ends too early"))?);
        if Some(number) == inner {
            count_fields(head, None)?;
        }
        rest = tail;
    }
    Ok(())
}

/// Counts, then decodes: what a fuzzer is let at.
pub fn decode<T: Counted>(bytes: &[u8]) -> Result<T, Status> {
    T::count(bytes)?;
    T::decode(bytes).map_err(damaged)
}

#[derive(Debug)]
pub struct FrameCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for FrameCodec<T, U> {
    fn default() -> Self {
        FrameCodec(PhantomData)
    }
}

impl<T: Counted, U: Counted> Codec for FrameCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = FrameEncoder<T>;
    type Decoder = FrameDecoder<U>;

    fn encoder(&mut self) -> FrameEncoder<T> {
        FrameEncoder(PhantomData)
    }

    fn decoder(&mut self) -> FrameDecoder<U> {
        FrameDecoder(PhantomData)
    }
}

/// Small buffers, since most frames are: tonic's default of 8 KiB would be kept for each session.
fn buffers() -> BufferSettings {
    BufferSettings::new(2 << 10, 64 << 10)
}

#[derive(Debug)]
pub struct FrameEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for FrameEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, frame: T, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.encode(out).map_err(|e| Status::internal(e.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

#[derive(Debug)]
pub struct FrameDecoder<U>(PhantomData<U>);

impl<U: Counted> Decoder for FrameDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Tonic gathers a message in one piece before it decodes it.
        if bytes.chunk().len() == bytes.remaining() {
            U::count(bytes.chunk())?;
            return U::decode(bytes).map(Some).map_err(damaged);
        }
        let whole = bytes.copy_to_bytes(bytes.remaining());
        decode(&whole).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}
