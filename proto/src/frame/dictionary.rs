//! Dictionaries: what frames of few records are compressed with. Which ones there are, and their prepared forms.

use std::sync::OnceLock;

use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// Content of the first built-in dictionary, made by `proto/examples/train_dictionary.rs`.
pub const DICTIONARY_V1: &[u8] = include_bytes!("../../dict/v1.dict");

/// Names a dictionary: the first four bytes of BLAKE3 of its content, little endian; never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DictionaryId(u32);

impl DictionaryId {
    /// The dictionary every peer of this version of the format has.
    pub const V1: DictionaryId = DictionaryId(0x7458_e683);

    /// The id of a dictionary's content.
    pub fn of(content: &[u8]) -> DictionaryId {
        let hash = blake3::hash(content);
        let [a, b, c, d, ..] = *hash.as_bytes();
        // 0 says "none" in a header. No content that hashes to it has ever been seen; it would be called 1.
        DictionaryId(u32::from_le_bytes([a, b, c, d]).max(1))
    }

    /// Reads the number in a frame's header; `None` for 0.
    pub fn from_wire(number: u32) -> Option<DictionaryId> {
        (number != 0).then_some(DictionaryId(number))
    }

    /// The number written in a frame's header.
    pub fn as_wire(self) -> u32 {
        self.0
    }

    /// Whether frames compressed with it can be read here.
    pub fn is_known(self) -> bool {
        find(self).is_some()
    }
}

impl std::fmt::Debug for DictionaryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl std::fmt::Display for DictionaryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// A dictionary, prepared when it is first used.
pub(super) struct Dictionary {
    id: DictionaryId,
    content: &'static [u8],
    encoder: OnceLock<EncoderDictionary<'static>>,
    decoder: OnceLock<DecoderDictionary<'static>>,
}

/// All that were ever built in. One that was in a release is never taken out: logs hold frames that need it.
static BUILT_IN: [Dictionary; 1] = [Dictionary::new(DictionaryId::V1, DICTIONARY_V1)];

impl Dictionary {
    const fn new(id: DictionaryId, content: &'static [u8]) -> Dictionary {
        Dictionary {
            id,
            content,
            encoder: OnceLock::new(),
            decoder: OnceLock::new(),
        }
    }

    pub(super) fn id(&self) -> DictionaryId {
        self.id
    }

    pub(super) fn encoder(&self) -> &EncoderDictionary<'static> {
        self.encoder
            .get_or_init(|| EncoderDictionary::copy(self.content, super::compress::LEVEL_DICTIONARY))
    }

    pub(super) fn decoder(&self) -> &DecoderDictionary<'static> {
        self.decoder.get_or_init(|| DecoderDictionary::copy(self.content))
    }
}

pub(super) fn find(id: DictionaryId) -> Option<&'static Dictionary> {
    BUILT_IN.iter().find(|dictionary| dictionary.id == id)
}

/// Every dictionary known here, for peers to be told.
pub fn known_dictionaries() -> impl Iterator<Item = DictionaryId> {
    BUILT_IN.iter().map(|dictionary| dictionary.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_dictionary_has_the_id_of_its_content() {
        for dictionary in &BUILT_IN {
            assert_eq!(DictionaryId::of(dictionary.content), dictionary.id);
            assert_ne!(dictionary.id.as_wire(), 0);
        }
    }

    #[test]
    fn the_released_dictionary_is_still_there() {
        // Frames on disks need it. Never change this test; add to it.
        assert!(DictionaryId(0x7458_e683).is_known());
    }
}
