//! Finds bytes in blocks of 64: what a vector instruction sets to compare sixteen at a time, a loop would take as one by one.

use wide::u8x16;

/// How many bytes are looked at together.
pub(super) const BLOCK: usize = 64;

/// Where in a block which bytes are: the lowest bit is the first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Masks {
    /// `"`
    pub(super) quotes: u64,
    /// `\`
    pub(super) backslashes: u64,
    /// `{` and `[`
    pub(super) opening: u64,
    /// `}` and `]`
    pub(super) closing: u64,
}

/// The bit in which braces and brackets differ.
const BRACE: u8 = 0x20;

/// The masks of a block.
pub(super) fn masks(block: &[u8; BLOCK]) -> Masks {
    let mut masks = Masks::default();
    let (lanes, _) = block.as_chunks::<16>();
    for (at, lane) in lanes.iter().enumerate() {
        let bytes = u8x16::from(*lane);
        let braces = bytes | u8x16::splat(BRACE);
        let found = |bytes: u8x16, byte: u8| {
            u64::from(bytes.simd_eq(u8x16::splat(byte)).to_bitmask()) << (at * 16)
        };
        masks.quotes |= found(bytes, b'"');
        masks.backslashes |= found(bytes, b'\\');
        masks.opening |= found(braces, b'{');
        masks.closing |= found(braces, b'}');
    }
    masks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(block: &[u8; BLOCK]) -> Masks {
        let mut masks = Masks::default();
        for (at, byte) in block.iter().enumerate() {
            masks.quotes |= u64::from(*byte == b'"') << at;
            masks.backslashes |= u64::from(*byte == b'\\') << at;
            masks.opening |= u64::from(matches!(byte, b'{' | b'[')) << at;
            masks.closing |= u64::from(matches!(byte, b'}' | b']')) << at;
        }
        masks
    }

    proptest! {
        #[test]
        fn vectors_find_what_a_loop_finds(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(&b"\"\\{}[]"[..])], BLOCK)) {
            let block: [u8; BLOCK] = bytes.try_into().unwrap();
            prop_assert_eq!(masks(&block), one_by_one(&block));
        }
    }
}
