//! Signatures of thinking, as both upstreams make them and take each other's.
//!
//! A signature covers the thoughts and the place of their block among the blocks of its turn: one that was altered, cut
//! or moved does not verify. Real signatures are opaque as well, and base64 with `+`, `/` and `=`.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

/// What every signature of the fakes begins with; any other is foreign.
const MAGIC: &[u8] = b"signed by the fake upstreams\x00\xff\xfe";

/// What a signature says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The block is as it was generated, and was the block of this place.
    Genuine {
        /// Its place in the turn that generated it.
        place: usize,
    },
    /// It was made by somebody else, such as a test's script.
    Foreign,
    /// The block or its signature was changed.
    Altered,
}

/// Signs thoughts that are the block of this place.
pub(crate) fn sign(place: usize, thinking: &str) -> String {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&place_bytes(place));
    bytes.extend_from_slice(&digest(place, thinking));
    BASE64_STANDARD.encode(bytes)
}

/// Judges thoughts by their signature.
pub(crate) fn verify(thinking: &str, signature: &str) -> Verdict {
    let Some((place, rest)) = open(signature) else {
        return Verdict::Foreign;
    };
    if rest == digest(place, thinking) {
        Verdict::Genuine { place }
    } else {
        Verdict::Altered
    }
}

/// Thoughts that only the model can read: the text and its signature in one.
pub(crate) fn redact(place: usize, thinking: &str) -> String {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&place_bytes(place));
    bytes.extend_from_slice(&digest(place, thinking));
    // Not readable at a glance, which is all that it is for.
    bytes.extend(thinking.bytes().map(|byte| byte ^ 0x55));
    BASE64_STANDARD.encode(bytes)
}

/// Judges redacted thoughts.
pub(crate) fn verify_redacted(data: &str) -> Verdict {
    let Some((place, rest)) = open(data) else {
        return Verdict::Foreign;
    };
    let Some((signed, hidden)) = rest.split_at_checked(DIGEST) else {
        return Verdict::Altered;
    };
    let thinking: Vec<u8> = hidden.iter().map(|byte| byte ^ 0x55).collect();
    if std::str::from_utf8(&thinking).is_ok_and(|thinking| signed == digest(place, thinking)) {
        Verdict::Genuine { place }
    } else {
        Verdict::Altered
    }
}

const DIGEST: usize = 32;

fn place_bytes(place: usize) -> [u8; 8] {
    (place as u64).to_be_bytes()
}

fn digest(place: usize, thinking: &str) -> [u8; DIGEST] {
    let mut hash = Sha256::new_with_prefix(MAGIC);
    hash.update(place_bytes(place));
    hash.update(thinking);
    hash.finalize().into()
}

/// The place that a signature of the fakes names, and what follows it; nothing for one of somebody else.
fn open(signature: &str) -> Option<(usize, Vec<u8>)> {
    let bytes = BASE64_STANDARD.decode(signature).ok()?;
    let (place, rest) = bytes.strip_prefix(MAGIC)?.split_at_checked(8)?;
    let place = u64::from_be_bytes(place.try_into().ok()?);
    Some((usize::try_from(place).ok()?, rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_signed_verifies_and_nothing_else_does(
            place in 0..9_usize, thinking in ".{0,40}", other in ".{0,40}",
        ) {
            let genuine = Verdict::Genuine { place };
            let signature = sign(place, &thinking);
            prop_assert_eq!(verify(&thinking, &signature), genuine);
            prop_assert_eq!(verify_redacted(&redact(place, &thinking)), genuine);
            if other != thinking {
                prop_assert_eq!(verify(&other, &signature), Verdict::Altered);
            }
            prop_assert_eq!(verify(&thinking, &other), Verdict::Foreign);
        }
    }

    #[test]
    fn a_signature_that_was_cut_or_encoded_again_is_not_genuine() {
        let signature = sign(0, "hm");
        let cut = &signature[..signature.len() - 8];
        assert_ne!(verify("hm", cut), Verdict::Genuine { place: 0 });
        let again = BASE64_STANDARD.encode(&signature);
        assert_eq!(verify("hm", &again), Verdict::Foreign);
        let redacted = redact(0, "hm");
        assert_ne!(
            verify_redacted(&redacted[..redacted.len() - 8]),
            Verdict::Genuine { place: 0 }
        );
    }
}
