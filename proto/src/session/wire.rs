//! Control messages as bytes: a 4-byte big-endian length and a [`v1::ControlMessage`].

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::limits;
use crate::v1;

/// Why control bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Longer than allowed.
    #[error("control message of {0} bytes is over the limit of {max} bytes", max = limits::CONTROL_MAX_BYTES)]
    TooLarge(usize),
    /// Not the expected protobuf message.
    #[error("malformed control message: {0}")]
    Malformed(String),
    /// A message kind this version does not know.
    #[error("a control message of a kind this version does not know")]
    Unknown,
}

/// Encodes a message with its length prefix.
///
/// # Errors
/// [`ControlError::TooLarge`].
pub fn encode(message: v1::control_message::Message) -> Result<Bytes, ControlError> {
    let message = v1::ControlMessage {
        message: Some(message),
    };
    let len = message.encoded_len();
    if len > limits::CONTROL_MAX_BYTES {
        return Err(ControlError::TooLarge(len));
    }
    let mut out = BytesMut::with_capacity(4 + len);
    out.put_u32(u32::try_from(len).map_err(|_| ControlError::TooLarge(len))?);
    message
        .encode(&mut out)
        .map_err(|err| ControlError::Malformed(err.to_string()))?;
    Ok(out.freeze())
}

/// Checks a length prefix before anything is allocated for the message.
///
/// # Errors
/// [`ControlError::TooLarge`].
pub fn decode_len(prefix: [u8; 4]) -> Result<usize, ControlError> {
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > limits::CONTROL_MAX_BYTES {
        Err(ControlError::TooLarge(len))
    } else {
        Ok(len)
    }
}

/// Decodes a message, without its length prefix.
///
/// # Errors
/// [`ControlError::Malformed`] or [`ControlError::Unknown`].
pub fn decode(body: &[u8]) -> Result<v1::control_message::Message, ControlError> {
    let message = v1::ControlMessage::decode(body).map_err(|err| ControlError::Malformed(err.to_string()))?;
    message.message.ok_or(ControlError::Unknown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_round_trip(reason in ".{0,40}", message in ".{0,200}") {
            let refuse = v1::control_message::Message::Refuse(v1::Refuse { reason, message });
            let bytes = encode(refuse.clone()).unwrap();
            let len = decode_len([bytes[0], bytes[1], bytes[2], bytes[3]]).unwrap();
            prop_assert_eq!(len, bytes.len() - 4);
            prop_assert_eq!(decode(&bytes[4..]).unwrap(), refuse);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_reading() {
        assert!(matches!(decode_len([0xff; 4]), Err(ControlError::TooLarge(_))));
    }
}
