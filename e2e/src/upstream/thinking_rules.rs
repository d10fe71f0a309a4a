//! Thinking that comes back: in the Messages API's form and in Converse's.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    conversation::blocks,
    signature::{self, Verdict},
};

/// Thinking is signed, unaltered and where it was.
pub(crate) fn check(index: usize, blocks: &[Value], trusts_foreign: bool) -> Result<(), String> {
    for (at, block) in blocks.iter().enumerate() {
        let place = format!("messages.{index}.content.{at}");
        match block["type"].as_str() {
            Some("thinking") => {
                let signature = block["signature"]
                    .as_str()
                    .ok_or_else(|| format!("{place}.thinking.signature: Field required"))?;
                let thinking = block["thinking"]
                    .as_str()
                    .ok_or_else(|| format!("{place}.thinking.thinking: Field required"))?;
                let verdict = signature::verify(thinking, signature);
                judge(verdict, at, trusts_foreign, &place, "thinking")?;
            }
            Some("redacted_thinking") => {
                let data = block["data"].as_str().unwrap_or_default();
                let verdict = signature::verify_redacted(data);
                judge(verdict, at, trusts_foreign, &place, "redacted_thinking")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The same of Converse's turns, whose cache points are no blocks.
pub(crate) fn check_reasoning(messages: &[Value], trusts_foreign: bool) -> Result<(), String> {
    for (index, message) in messages.iter().enumerate() {
        let blocks = blocks(message)
            .iter()
            .filter(|block| block.get("cachePoint").is_none());
        for (at, block) in blocks.enumerate() {
            let place = format!("messages.{index}.content.{at}");
            let reasoning = &block["reasoningContent"];
            let text = &reasoning["reasoningText"];
            if let Some(signature) = text["signature"].as_str() {
                let thinking = text["text"].as_str().unwrap_or_default();
                let verdict = signature::verify(thinking, signature);
                judge(verdict, at, trusts_foreign, &place, "thinking")?;
            } else if let Some(data) = reasoning["redactedContent"].as_str() {
                // What the Messages API has as base64 is base64 once more here.
                let data = BASE64_STANDARD.decode(data).ok();
                let data = data.and_then(|data| String::from_utf8(data).ok());
                let verdict = signature::verify_redacted(&data.unwrap_or_default());
                judge(verdict, at, trusts_foreign, &place, "redacted_thinking")?;
            }
        }
    }
    Ok(())
}

fn judge(
    verdict: Verdict,
    at: usize,
    trusts_foreign: bool,
    place: &str,
    kind: &str,
) -> Result<(), String> {
    match verdict {
        Verdict::Genuine { place: signed } if signed == at => Ok(()),
        Verdict::Foreign if trusts_foreign => Ok(()),
        Verdict::Genuine { .. } => Err(format!(
            "{place}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks must remain as they were in the original response."
        )),
        Verdict::Foreign | Verdict::Altered => {
            let member = if kind == "thinking" {
                "signature"
            } else {
                "data"
            };
            Err(format!("{place}: Invalid `{member}` in `{kind}` block"))
        }
    }
}
