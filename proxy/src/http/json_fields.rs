//! Walks over the fields of a JSON object and skips what is in them: a request body is mostly text that nobody here reads.
//!
//! Only as much is checked as is needed to find where values end. What is wrong inside a value is for the upstream to say,
//! in the words that clients know.

use super::json_masks::{BLOCK, masks};

/// A body that is no JSON object as far as it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed {
    /// What is expected instead.
    pub(super) expected: &'static str,
    /// Where, in bytes.
    pub(super) at: usize,
}

/// Calls `field` with each key, its quotes included, and its value, in their order.
pub(super) fn fields<'a, E: From<Malformed>>(
    json: &'a [u8],
    mut field: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut at = expect(json, white(json, 0), b'{', "a JSON object")?;
    at = white(json, at);
    if json.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let key = white(json, at);
            let key_end = string(json, expect(json, key, b'"', "a key in double quotes")?)?;
            let value = expect(json, white(json, key_end), b':', "a colon behind the key")?;
            let value = white(json, value);
            let value_end = skip(json, value)?;
            field(&json[key..key_end], &json[value..value_end])?;
            at = white(json, value_end);
            match json.get(at) {
                Some(b',') => at += 1,
                Some(b'}') => break at += 1,
                _ => return Err(malformed("a comma or a closing brace", at).into()),
            }
        }
    }
    at = white(json, at);
    if at < json.len() {
        return Err(malformed("nothing behind the object", at).into());
    }
    Ok(())
}

fn malformed(expected: &'static str, at: usize) -> Malformed {
    Malformed { expected, at }
}

/// The place behind `byte`, which must be at `at`.
fn expect(json: &[u8], at: usize, byte: u8, expected: &'static str) -> Result<usize, Malformed> {
    if json.get(at) == Some(&byte) {
        Ok(at + 1)
    } else {
        Err(malformed(expected, at))
    }
}

/// The first place from `at` on that is no white space.
fn white(json: &[u8], at: usize) -> usize {
    json[at..]
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'))
        .map_or(json.len(), |offset| at + offset)
}

/// The place behind the value that begins at `at`.
fn skip(json: &[u8], at: usize) -> Result<usize, Malformed> {
    match json.get(at) {
        Some(b'"') => string(json, at + 1),
        Some(b'{' | b'[') => nested(json, at),
        _ => {
            let length = json[at..]
                .iter()
                .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t'))
                .unwrap_or(json.len() - at);
            match &json[at..at + length] {
                b"true" | b"false" | b"null" => Ok(at + length),
                [b'-' | b'0'..=b'9', rest @ ..]
                    if rest.iter().all(|byte| {
                        matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')
                    }) =>
                {
                    Ok(at + length)
                }
                _ => Err(malformed("a value", at)),
            }
        }
    }
}

/// The place behind the string whose first byte after the quote is at `start`.
fn string(json: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    // Most keys and many values are short: shorter than what a search with vectors costs to set up.
    let near = (start + 16).min(json.len());
    while at < near {
        match json[at] {
            b'"' => return Ok(at + 1),
            b'\\' => break,
            _ => at += 1,
        }
    }
    let mut strings = Strings::default();
    let (blocks, rest) = json[at..].as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (number, block) in blocks.iter().chain([&last]).enumerate() {
        let found = masks(block);
        let quotes = found.quotes & !strings.escaped(found.backslashes);
        if quotes != 0 {
            return Ok(at + number * BLOCK + quotes.trailing_zeros() as usize + 1);
        }
    }
    Err(malformed("the end of this text", start - 1))
}

/// The place behind the object or list that begins at `start`, without recursion: a client nests as deep as it likes.
///
/// Block by block, as in Langdale and Lemire, "Parsing Gigabytes of JSON per Second": which quotes are escaped, what is between
/// the others, and how many braces and brackets are left outside of that.
fn nested(json: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut depth = 0_usize;
    let mut strings = Strings::default();
    let (blocks, rest) = json[start..].as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (number, block) in blocks.iter().chain([&last]).enumerate() {
        let found = masks(block);
        let inside = strings.inside(found.quotes, found.backslashes);
        let (opening, mut closing) = (found.opening & !inside, found.closing & !inside);
        let closed = closing.count_ones() as usize;
        if closed >= depth {
            // The end may be here: each closing one is held against those that opened before it.
            let mut closed_before = 0;
            while closing != 0 {
                let at = closing.trailing_zeros();
                let opened = (opening & ((1 << at) - 1)).count_ones() as usize;
                closed_before += 1;
                if depth + opened == closed_before {
                    return Ok(start + number * BLOCK + at as usize + 1);
                }
                closing &= closing - 1;
            }
        }
        depth = depth + opening.count_ones() as usize - closed;
    }
    Err(malformed("the end of this object or list", start))
}

/// What is inside of strings, from one block to the next.
#[derive(Default)]
struct Strings {
    /// The last block ended inside of a string: all bits, or none.
    inside: u64,
    /// Its last byte was a backslash that is not escaped itself.
    escaping: bool,
}

impl Strings {
    /// Which bytes of the next block are in a string, its opening quote included.
    fn inside(&mut self, quotes: u64, backslashes: u64) -> u64 {
        let quotes = quotes & !self.escaped(backslashes);
        let inside = up_to_and_with(quotes) ^ self.inside;
        self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        inside
    }

    /// Which bytes are escaped: without a branch, for text has its escapes anywhere. A run of backslashes escapes every second
    /// byte from its second on; which ones these are, a subtraction tells that carries through the run, as simdjson found.
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let before = u64::from(self.escaping);
        let may_escape = backslashes & !before;
        let runs = ((may_escape << 1) | ODD).wrapping_sub(may_escape) ^ ODD;
        self.escaping = (runs & backslashes) >> 63 == 1;
        runs ^ (backslashes | before)
    }
}

/// For each bit whether the number of ones up to and with it is odd.
fn up_to_and_with(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}
