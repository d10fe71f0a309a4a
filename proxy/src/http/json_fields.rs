//! Walks over the fields of a JSON object and skips what is in them: a request body is mostly text that nobody here reads.
//!
//! Only as much is checked as is needed to find where values end. What is wrong inside a value is for the upstream to say,
//! in the words that clients know.

use memchr::memchr;

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
    loop {
        let Some(offset) = json.get(at..).and_then(|rest| memchr(b'"', rest)) else {
            return Err(malformed("the end of this text", start - 1));
        };
        let quote = at + offset;
        let escapes = json[start..quote]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        at = quote + 1;
        if escapes % 2 == 0 {
            return Ok(at);
        }
    }
}

/// What the bytes between strings are, by value: 0 is nothing of interest.
const QUOTE: u8 = 1;
const OPEN: u8 = 2;
const CLOSE: u8 = 3;
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classes[b'"' as usize] = QUOTE;
    classes[b'{' as usize] = OPEN;
    classes[b'[' as usize] = OPEN;
    classes[b'}' as usize] = CLOSE;
    classes[b']' as usize] = CLOSE;
    classes
};

/// The place behind the object or list that begins at `start`, without recursion: a client nests as deep as it likes.
fn nested(json: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    let mut depth = 0_usize;
    while let Some(byte) = json.get(at) {
        at += 1;
        match CLASSES[usize::from(*byte)] {
            QUOTE => at = string(json, at)?,
            OPEN => depth += 1,
            CLOSE => {
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => {}
        }
    }
    Err(malformed("the end of this object or list", start))
}
