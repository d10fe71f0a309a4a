//! Width and height of an image, from its first bytes.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// How much of an image is looked at, in characters of base64: photographs carry previews before their size.
const LOOKED_AT: usize = 128 * 1024;

/// Takes base64 that was cut anywhere.
const CUT_OFF: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Width and height in pixels of an image in base64; `None` if it is none of those that the Messages API takes.
pub(super) fn of_base64(data: &str) -> Option<(u32, u32)> {
    let data = data.as_bytes();
    let begin = &data[..data.len().min(LOOKED_AT) / 4 * 4];
    of(&CUT_OFF.decode(begin).ok()?)
}

fn of(image: &[u8]) -> Option<(u32, u32)> {
    match image {
        [0x89, b'P', b'N', b'G', ..] => Some((u32_be(image, 16)?, u32_be(image, 20)?)),
        [b'G', b'I', b'F', b'8', ..] => Some((u16_le(image, 6)?, u16_le(image, 8)?)),
        [0xff, 0xd8, ..] => jpeg(image),
        [b'R', b'I', b'F', b'F', ..] if image.get(8..12) == Some(b"WEBP") => webp(image),
        _ => None,
    }
}

/// Looks for the segment that begins a frame. Source: ITU-T T.81, B.2.
fn jpeg(image: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *image.get(at)? != 0xff {
            return None;
        }
        match *image.get(at + 1)? {
            // Fill bytes, and markers without a length.
            0xff => at += 1,
            0x01 | 0xd0..=0xd9 => at += 2,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((u16_be(image, at + 7)?, u16_be(image, at + 5)?));
            }
            _ => at += 2 + usize::try_from(u16_be(image, at + 2)?).ok()?,
        }
    }
}

/// Source: RFC 9649, section 2.
fn webp(image: &[u8]) -> Option<(u32, u32)> {
    match image.get(12..16)? {
        b"VP8 " => Some((u16_le(image, 26)? & 0x3fff, u16_le(image, 28)? & 0x3fff)),
        b"VP8L" => {
            let bits = u16_le(image, 21)? | u16_le(image, 23)? << 16;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => {
            let u24 = |at| Some(u16_le(image, at)? | u32::from(*image.get(at + 2)?) << 16);
            Some((u24(24)? + 1, u24(27)? + 1))
        }
        _ => None,
    }
}

fn u16_be(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn u16_le(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_found_in_every_format_that_is_taken() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06";
        let gif = b"GIF89a\x80\x02\xe0\x01\xf7";
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x11\x08\x01\xe0\x02\x80\x03";
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01";
        let lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x7f\xc2\x77\0";
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        for image in [&png[..], gif, jpeg, lossy, lossless, extended] {
            assert_eq!(of(image), Some((640, 480)), "{image:?}");
            for cut in 0..image.len() - 3 {
                let _ = of(&image[..cut]);
            }
        }
        assert_eq!(of(b"%PDF-1.7"), None);
        assert_eq!(of_base64("R0lGODlhgALgAQ=="), Some((640, 480)));
        assert_eq!(of_base64("!!!!"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_size_or_none(kind in 0usize..4, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let begin: &[u8] = [&b"\x89PNG"[..], b"GIF8", b"\xff\xd8", b"RIFF\0\0\0\0WEBPVP8"][kind];
            let _ = of(&[begin, &rest].concat());
        }
    }
}
