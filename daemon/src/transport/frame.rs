//! Frames: a length of four bytes, little-endian, then that many bytes of CBOR.

use minicbor::{Decode, Encode};
use quinn::{ReadExactError, RecvStream, SendStream, WriteError};

/// Encodes a message as one frame.
///
/// # Panics
/// If it is longer than four bytes can say.
#[must_use]
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; 4];
    minicbor::encode(message, &mut frame).expect("a vector takes every byte");
    let length = u32::try_from(frame.len() - 4).expect("messages are far below 4 GiB");
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Sends a message as one frame.
///
/// # Errors
/// If the stream or its connection has ended.
pub async fn write<T: Encode<()>>(stream: &mut SendStream, message: &T) -> Result<(), WriteError> {
    stream.write_all(&encode(message)).await
}

/// Receives one frame of at most `max` bytes. `None`: the stream ended where a frame might begin.
///
/// # Errors
/// A longer frame, one that breaks off, or one that isn't the message.
pub async fn read<T>(stream: &mut RecvStream, max: usize) -> Result<Option<T>, FrameError>
where
    T: for<'b> Decode<'b, ()>,
{
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLong { length, max });
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    decode(&bytes).map(Some)
}

/// Decodes a frame's bytes.
///
/// # Errors
/// If they aren't the message, or more than it.
pub fn decode<T>(bytes: &[u8]) -> Result<T, FrameError>
where
    T: for<'b> Decode<'b, ()>,
{
    let mut decoder = minicbor::Decoder::new(bytes);
    let message = decoder.decode()?;
    if decoder.position() != bytes.len() {
        return Err(FrameError::Trailing);
    }
    Ok(message)
}

/// Why there is no message.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It is beyond the bounds.
    #[error("a message of {length} bytes, where {max} are allowed")]
    TooLong {
        /// What it claims to have.
        length: usize,
        /// What it may have.
        max: usize,
    },
    /// It isn't the message that belongs there.
    #[error("a malformed message")]
    Malformed(#[from] minicbor::decode::Error),
    /// Something follows it.
    #[error("a message with bytes after its end")]
    Trailing,
    /// The stream ended or broke.
    #[error("the stream ended: {0}")]
    Ended(#[from] ReadExactError),
}

impl FrameError {
    /// Whether the other device is to blame, rather than the line.
    #[must_use]
    pub fn is_violation(&self) -> bool {
        !matches!(self, FrameError::Ended(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_its_length() {
        let frame = encode(&"abc");
        assert_eq!(frame, [4, 0, 0, 0, 0x63, b'a', b'b', b'c']);
        assert_eq!(decode::<String>(&frame[4..]).unwrap(), "abc");
        assert!(matches!(decode::<String>(b"\x61ab"), Err(FrameError::Trailing)));
        assert!(matches!(decode::<String>(b"\x63ab"), Err(FrameError::Malformed(_))));
    }
}
