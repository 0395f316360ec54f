//! The wire format of protocol buffers (<https://protobuf.dev/programming-guides/encoding/>): fields of a message, one after
//! the other.

use super::DecodeError;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) content: Content<'a>,
}

impl<'a> Field<'a> {
    /// What a field with a length holds; `name` is for the error.
    pub(super) fn bytes(&self, name: &str) -> Result<&'a [u8], DecodeError> {
        match self.content {
            Content::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong(name)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| DecodeError::Content(name.to_owned()))
    }

    pub(super) fn varint(&self, name: &str) -> Result<u64, DecodeError> {
        match self.content {
            Content::Varint(value) => Ok(value),
            _ => Err(self.wrong(name)),
        }
    }

    pub(super) fn wrong(&self, name: &str) -> DecodeError {
        let wire = match self.content {
            Content::Varint(_) => 0,
            Content::Fixed64(_) => 1,
            Content::Bytes(_) => 2,
            Content::Fixed32(_) => 5,
        };
        DecodeError::WireType {
            wire,
            name: name.to_owned(),
        }
    }
}

/// The fields of a message, in the order in which they stand. Nothing follows an error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    fn field(&mut self) -> Result<Field<'a>, DecodeError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0);
        let number = number.ok_or(DecodeError::Tag(tag))?;
        let content = match tag & 7 {
            0 => Content::Varint(varint(&mut self.rest)?),
            1 => Content::Fixed64(u64::from_le_bytes(fixed(&mut self.rest)?)),
            2 => {
                let len = varint(&mut self.rest)?;
                let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
                let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
                self.rest = rest;
                Content::Bytes(bytes)
            }
            5 => Content::Fixed32(u32::from_le_bytes(fixed(&mut self.rest)?)),
            // Groups went out of use before Kubernetes came.
            _ => return Err(DecodeError::Tag(tag)),
        };
        Ok(Field { number, content })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// A number of at most ten bytes, seven bits each, the lowest first.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Truncated)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok(*bytes)
}
