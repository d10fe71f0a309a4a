//! Answers that do not stream.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::citations::{self, Titles};
use super::context::Context;
use super::names::replayable_id;
use super::stop::Stop;
use super::usage::Usage;
use crate::adapter::json::{self, Kind};

/// An answer that is none.
#[derive(Debug, thiserror::Error)]
#[error("bedrock's answer is not one of converse")]
pub(super) struct BadAnswer(#[from] serde_json::Error);

/// Converse's answer as a message.
pub(super) fn translate(body: &[u8], context: &Context) -> Result<Vec<u8>, BadAnswer> {
    let body =
        std::str::from_utf8(body).map_err(<serde_json::Error as serde::de::Error>::custom)?;
    let [output, reason, usage, fields] = json::pick(
        body,
        [
            "output",
            "stopReason",
            "usage",
            "additionalModelResponseFields",
        ],
    )?;
    let [message] = json::pick(output.map_or("{}", RawValue::get), ["message"])?;
    let [blocks] = json::pick(message.map_or("{}", RawValue::get), ["content"])?;
    let mut out = Vec::with_capacity(body.len() + 256);
    context.write_head(&mut out);
    out.extend_from_slice(b",\"content\":[");
    let start = out.len();
    json::each::<BadAnswer>(blocks.map_or("[]", RawValue::get), |_, block| {
        let before = out.len();
        if before > start {
            out.push(b',');
        }
        if !write_block(&mut out, block, context)? {
            out.truncate(before);
        }
        Ok(())
    })?;
    out.extend_from_slice(b"],");
    Stop::read(reason, fields, context).write(&mut out);
    out.extend_from_slice(b",\"usage\":");
    usage
        .and_then(Usage::read)
        .unwrap_or_default()
        .write(&mut out);
    out.push(b'}');
    Ok(out)
}

/// Appends a block; `false` where it has no form, or none that a client could send back. Such is a text of white space: clients
/// send back what they got, the Plan refuses it ("text content blocks must contain non-whitespace text"), and bodies to the Plan
/// are not mended on the way. The conversation could never return there, for white space that says nothing.
fn write_block(
    out: &mut Vec<u8>,
    block: &RawValue,
    context: &Context,
) -> Result<bool, serde_json::Error> {
    let [text, tool_use, reasoning, cited] = json::pick(
        block.get(),
        ["text", "toolUse", "reasoningContent", "citationsContent"],
    )?;
    match (text, tool_use, reasoning, cited) {
        (Some(text), ..) => {
            if json::kind_of(text) != Kind::Text || json::is_blank(text) {
                return Ok(false);
            }
            out.extend_from_slice(b"{\"type\":\"text\",\"text\":");
            out.extend_from_slice(text.get().as_bytes());
            out.push(b'}');
            Ok(true)
        }
        (_, Some(tool_use), ..) => write_tool_use(out, tool_use, context),
        (_, _, Some(reasoning), _) => write_reasoning(out, reasoning, context),
        (_, _, _, Some(cited)) => write_cited(out, cited, &context.titles),
        _ => Ok(false),
    }
}

fn write_tool_use(
    out: &mut Vec<u8>,
    tool_use: &RawValue,
    context: &Context,
) -> Result<bool, serde_json::Error> {
    let [id, name, input, kind] =
        json::pick(tool_use.get(), ["toolUseId", "name", "input", "type"])?;
    let (Some(id), Some(name)) = (id.and_then(json::text), name.and_then(json::text)) else {
        return Ok(false);
    };
    // Such a tool ran at the model's side.
    if kind.is_some_and(|kind| kind.get() == r#""server_tool_use""#) {
        return Ok(false);
    }
    out.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
    json::write_text(out, &replayable_id(&id));
    out.extend_from_slice(b",\"name\":");
    json::write_text(out, context.tools.original(&name));
    out.extend_from_slice(b",\"input\":");
    let input = input.filter(|input| json::kind_of(input) == Kind::Object);
    out.extend_from_slice(input.map_or("{}", RawValue::get).as_bytes());
    out.push(b'}');
    Ok(true)
}

fn write_reasoning(
    out: &mut Vec<u8>,
    reasoning: &RawValue,
    context: &Context,
) -> Result<bool, serde_json::Error> {
    let [reasoning, redacted] = json::pick(reasoning.get(), ["reasoningText", "redactedContent"])?;
    if let Some(data) = redacted.and_then(|redacted| redacted_data(&json::text(redacted)?)) {
        out.extend_from_slice(b"{\"type\":\"redacted_thinking\",\"data\":");
        json::write_text(out, &data);
        out.push(b'}');
        return Ok(true);
    }
    let [text, signature] =
        json::pick(reasoning.map_or("{}", RawValue::get), ["text", "signature"])?;
    let signature =
        signature.filter(|signature| json::escaped(signature).is_some_and(|text| !text.is_empty()));
    let Some(text) = text.filter(|text| json::kind_of(text) == Kind::Text) else {
        return Ok(false);
    };
    if signature.is_none() && !context.is_claude {
        return Ok(false);
    }
    out.extend_from_slice(b"{\"type\":\"thinking\",\"thinking\":");
    out.extend_from_slice(text.get().as_bytes());
    out.extend_from_slice(b",\"signature\":");
    out.extend_from_slice(signature.map_or("\"\"", RawValue::get).as_bytes());
    out.push(b'}');
    Ok(true)
}

/// Redacted thinking as Anthropic has it, or a piece of it: the wire has base64 of that. `None` for what is not Anthropic's.
pub(super) fn redacted_data(wire: &str) -> Option<String> {
    let data = String::from_utf8(BASE64_STANDARD.decode(wire).ok()?).ok()?;
    (!data.is_empty()).then_some(data)
}

fn write_cited(
    out: &mut Vec<u8>,
    cited: &RawValue,
    titles: &Titles,
) -> Result<bool, serde_json::Error> {
    let [content, list] = json::pick(cited.get(), ["content", "citations"])?;
    out.extend_from_slice(b"{\"type\":\"text\",\"text\":\"");
    let start = out.len();
    citations::write_texts(out, content);
    if out.len() == start {
        return Ok(false);
    }
    out.extend_from_slice(b"\",\"citations\":[");
    let start = out.len();
    json::each::<serde_json::Error>(list.map_or("[]", RawValue::get), |_, citation| {
        if let Some(citation) = citations::translate(citation, titles) {
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(&citation);
        }
        Ok(())
    })?;
    out.extend_from_slice(b"]}");
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn context(is_claude: bool) -> Context {
        Context {
            id: "msg_1".into(),
            model: "claude-x".into(),
            is_claude,
            input_guess: 9,
            ..Context::default()
        }
    }

    fn message(body: &Value, is_claude: bool) -> Value {
        let json = translate(body.to_string().as_bytes(), &context(is_claude)).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn answer(content: &Value) -> Value {
        json!({
            "output": {"message": {"role": "assistant", "content": content}}, "stopReason": "end_turn",
            "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, "metrics": {"latencyMs": 1},
        })
    }

    #[test]
    fn an_answer_becomes_a_message() {
        assert_eq!(
            message(
                &answer(
                    &json!([{"text": "Grüße"}, {"toolUse": {"toolUseId": "t_1", "name": "n", "input": {"b": 1, "a": [0.10]}}}])
                ),
                true
            ),
            json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
                "content": [{"type": "text", "text": "Grüße"}, {"type": "tool_use", "id": "t_1", "name": "n", "input": {"b": 1, "a": [0.10]}}],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 4},
            })
        );
    }

    #[test]
    fn a_tools_input_keeps_its_order_and_numbers() {
        let json = r#"{"output":{"message":{"content":[{"toolUse":{"toolUseId":"t","name":"n","input":{"z":1.50, "a":12345678901234567890123}}}]}}}"#;
        let out = translate(json.as_bytes(), &context(true)).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains(r#""input":{"z":1.50, "a":12345678901234567890123}"#),
            "{out}"
        );
    }

    #[test]
    fn nothing_comes_out_that_could_not_be_sent_back() {
        let content = json!([
            {"text": ""},
            {"text": " \n"},
            {"reasoningContent": {"reasoningText": {"text": "hm"}}},
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": ""}}},
            {"reasoningContent": {"redactedContent": "////"}},
            {"toolUse": {"toolUseId": "s", "name": "n", "input": {}, "type": "server_tool_use"}},
            {"image": {"format": "png", "source": {"bytes": ""}}},
            {"toolUse": {"toolUseId": "functions.n:0", "name": "n", "input": "no object"}},
        ]);
        let message = message(&answer(&content), false);
        let [call] = message["content"].as_array().unwrap().as_slice() else {
            panic!("{message}");
        };
        assert!(call["id"].as_str().unwrap().starts_with("functions_n_0_"));
        assert_eq!(call["input"], json!({}));
    }

    #[test]
    fn claudes_thinking_comes_with_its_signature_and_redacted_thinking_decoded_once() {
        let data = "EuoBCoYBGAIiQL7a";
        let content = json!([
            {"reasoningContent": {"reasoningText": {"text": "I think", "signature": "c2ln"}}},
            {"reasoningContent": {"redactedContent": BASE64_STANDARD.encode(data)}},
        ]);
        assert_eq!(
            message(&answer(&content), true)["content"],
            json!([{"type": "thinking", "thinking": "I think", "signature": "c2ln"}, {"type": "redacted_thinking", "data": data}])
        );
    }

    #[test]
    fn cited_text_is_text_with_citations() {
        let content = json!([{"citationsContent": {"content": [{"text": "a"}, {"text": "b"}], "citations": [
            {"title": "t", "sourceContent": [{"text": "c"}], "location": {"documentChar": {"documentIndex": 0, "start": 1, "end": 2}}},
            {"location": {"web": {"url": "u"}}},
        ]}}]);
        assert_eq!(
            message(&answer(&content), true)["content"],
            json!([{"type": "text", "text": "ab", "citations": [{
                "type": "char_location", "cited_text": "c", "document_index": 0, "document_title": "t", "file_id": null,
                "start_char_index": 1, "end_char_index": 2,
            }]}])
        );
    }

    #[test]
    fn an_answer_without_usage_counts_nothing() {
        assert_eq!(message(&json!({}), true)["usage"]["input_tokens"], 0);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_message_or_an_error(body in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
            let _ = translate(body.as_bytes(), &context(true));
        }
    }
}
