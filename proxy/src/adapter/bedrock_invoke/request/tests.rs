use super::*;

const OPUS: &str = "global.anthropic.claude-opus-4-8";
const OLDER: &str = "us.anthropic.claude-3-7-sonnet-20250219-v1:0";
const OLD: &str = "anthropic.claude-3-haiku-20240307-v1:0";

fn try_invoke(body: &str) -> Result<Vec<u8>, TranslateError> {
    translate(body.as_bytes(), std::iter::empty(), ModelTraits::of(OPUS))
}

fn invoke_of(body: &str, betas: &[&str], model: &str) -> String {
    let model = ModelTraits::of(model);
    let body = translate(body.as_bytes(), betas.iter().copied(), model).unwrap();
    String::from_utf8(body).unwrap()
}

fn invoke(body: &str, betas: &[&str]) -> String {
    invoke_of(body, betas, OPUS)
}

#[test]
fn what_bedrock_takes_stays_as_it_was_and_the_rest_goes() {
    let body = r#"{"model":"claude-x","max_tokens": 1e3,"stream":true,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"zeta":1.0,"cache_control":{"type":"ephemeral"},"tags":{},"top_p":0.50}"#;
    assert_eq!(
        invoke(body, &[]),
        r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":1e3,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"top_p":0.50}"#
    );
}

#[test]
fn markers_are_such_as_the_model_takes() {
    let body = |marker: &str| {
        format!(
            r#"{{"system":[{{"type":"text","text":"the \"ttl\""{marker}}}],"tools":[{{"name":"a"{marker},"input_schema":{{"ttl":1,"cache_control":2}}}}]}}"#
        )
    };
    let given = body(r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#);
    for (model, left) in [
        (OPUS, r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#),
        (OLDER, r#","cache_control":{"type":"ephemeral"}"#),
        (OLD, ""),
    ] {
        let sent = invoke_of(&given, &[], model);
        assert!(sent.ends_with(&body(left)[1..]), "{sent}");
    }
}

#[test]
fn members_of_tools_that_bedrock_refuses_go() {
    let body = r#"{"tools":[{"name":"a","eager_input_streaming":true,"input_schema":{"properties":{"allowed_callers":{}}},"allowed_callers":["direct"],"strict":true}]}"#;
    assert_eq!(
        invoke(body, &[]),
        r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["fine-grained-tool-streaming-2025-05-14"],"tools":[{"name":"a","input_schema":{"properties":{"allowed_callers":{}}},"strict":true}]}"#
    );
}

#[test]
fn effort_goes_with_models_that_know_it() {
    let body = r#"{"output_config":{"effort":"high","format":{"type":"json_schema"}}}"#;
    assert!(invoke(body, &[]).ends_with(&body[1..]));
    let sent = invoke_of(body, &[], OLDER);
    assert!(
        sent.ends_with(r#","output_config":{"format":{"type":"json_schema"}}}"#),
        "{sent}"
    );
    assert!(!sent.contains("effort"), "nor its beta");
    let sent = invoke_of(r#"{"output_config":{"effort":"low"}}"#, &[EFFORT], OLDER);
    assert!(!sent.contains("output_config"));
}

#[test]
fn of_the_output_config_goes_what_bedrock_takes() {
    for (given, sent) in [
        (
            r#"{"effort":"high","task_budget":{"type":"tokens","total":20000}}"#,
            r#","output_config":{"effort":"high"}}"#,
        ),
        (
            r#"{"task_budget":{"total":1},"format":{"type":"json_schema"}}"#,
            r#","output_config":{"format":{"type":"json_schema"}}}"#,
        ),
    ] {
        let out = invoke(
            &format!(r#"{{"output_config":{given}}}"#),
            &["task-budgets-2026-03-13"],
        );
        assert!(out.ends_with(sent), "{out}");
    }
    let out = invoke(r#"{"output_config":{"task_budget":{"total":1}}}"#, &[]);
    assert_eq!(out, r#"{"anthropic_version":"bedrock-2023-05-31"}"#);
    assert!(try_invoke(r#"{"output_config":[]}"#).is_err());
}

#[test]
fn a_system_turn_that_changes_the_tools_is_not_sent() {
    for kind in ["tool_addition", "tool_removal"] {
        let turn = |role: &str| {
            format!(
                r#"{{"messages":[{{"role":"user","content":"tool_addition"}},{{"role":"{role}","content":[{{"type":"{kind}","tool":{{"name":"n"}}}}]}}]}}"#
            )
        };
        assert!(
            matches!(try_invoke(&turn("system")), Err(TranslateError::Unsupported(name)) if name == kind)
        );
        // Of any other turn Bedrock says itself what is wrong.
        assert!(try_invoke(&turn("user")).is_ok());
    }
}

#[test]
fn the_betas_name_for_a_format_is_the_one_that_bedrock_knows() {
    let format = r#"{"type":"json_schema","schema":{}}"#;
    for body in [
        format!(r#"{{"output_format":{format}}}"#),
        format!(r#"{{"output_config":{{"format":{format}}},"output_format":null}}"#),
    ] {
        assert!(
            invoke(&body, &[]).ends_with(&format!(r#""output_config":{{"format":{format}}}}}"#))
        );
    }
}

#[test]
fn system_turns_and_thinking_are_sent_as_they_are() {
    let body = r#""messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"c2ln"},{"type":"redacted_thinking","data":"x"}]}],"thinking":{"type":"adaptive"}}"#;
    assert!(
        invoke(
            &format!("{{{body}"),
            &["mid-conversation-system-2026-04-07"]
        )
        .ends_with(body)
    );
}

#[test]
fn betas_are_filtered_to_what_bedrock_takes() {
    let betas = [
        "claude-code-20250219,interleaved-thinking-2025-05-14",
        " request-tags-2026-08-21 , context-1m-2025-08-07",
    ];
    let body = invoke(
        r#"{"anthropic_beta":["interleaved-thinking-2025-05-14","output-128k-2025-02-19","new-2027-01-01"]}"#,
        &betas,
    );
    assert_eq!(
        body,
        r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["context-1m-2025-08-07","interleaved-thinking-2025-05-14","output-128k-2025-02-19"]}"#
    );
    assert!(
        !invoke("{}", &["claude-code-20250219"]).contains("anthropic_beta"),
        "an empty list is refused too"
    );
}

#[test]
fn a_field_travels_with_its_beta() {
    let body = r#"{"context_management":{"edits":[]},"tags":{"a":"b"}}"#;
    assert!(invoke(body, &[CONTEXT_MANAGEMENT]).ends_with(r#""context_management":{"edits":[]}}"#));
    assert_eq!(
        invoke(body, &["request-tags-2026-08-21"]),
        r#"{"anthropic_version":"bedrock-2023-05-31"}"#
    );
}

#[test]
fn a_turn_has_its_role_and_content_alone() {
    let betas = ["per-turn-control-2026-07-01,thinking-display-updates-2026-08-18"];
    let body = r#"{"thinking":{"type":"adaptive","display":"updates"},"messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"output_config"}],"output_config":{"effort":"low"}}, "x"]}"#;
    assert_eq!(
        invoke(body, &betas),
        r#"{"anthropic_version":"bedrock-2023-05-31","thinking":{"type":"adaptive"},"messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"output_config"}]},"x"]}"#
    );
    let plain = r#""messages":[ {"role":"user",  "content":{"output_config":1}} ]}"#;
    assert!(invoke(&format!("{{{plain}"), &[]).ends_with(plain));
}

#[test]
fn what_the_plan_serves_without_a_beta_gets_bedrocks() {
    for (body, beta) in [
        (r#"{"output_config":{"effort":"high"}}"#, EFFORT),
        (
            r#"{"tools":[{"name":"a","defer_loading":true}]}"#,
            TOOL_SEARCH,
        ),
        (
            r#"{"tools":[{"type":"tool_search_tool_regex_20251119","name":"s"}]}"#,
            TOOL_SEARCH,
        ),
        (
            r#"{"tools":[{"name":"a","input_examples":[{}]}]}"#,
            TOOL_EXAMPLES,
        ),
    ] {
        assert!(
            invoke(body, &["advanced-tool-use-2025-11-20"])
                .contains(&format!(r#""anthropic_beta":["{beta}"]"#)),
            "{body}"
        );
    }
    assert!(!invoke(r#"{"output_config":{"format":{}}}"#, &[]).contains("anthropic_beta"));
}

#[test]
fn calls_that_would_mean_something_else_are_not_sent() {
    for field in ["container", "mcp_servers", "safeguards"] {
        let body = format!(r#"{{"{field}":{{"a":1}}}}"#);
        assert!(
            matches!(try_invoke(&body), Err(TranslateError::Unsupported(name)) if name == field)
        );
        for nothing in ["null", "[]", "{}"] {
            let body = format!(r#"{{"{field}":{nothing}}}"#);
            let sent = try_invoke(&body).unwrap();
            assert_eq!(sent, br#"{"anthropic_version":"bedrock-2023-05-31"}"#);
        }
    }
}

#[test]
fn the_scope_of_a_cache_marker_goes_with_its_beta() {
    let body = r#"{"system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","scope":"global","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"scope":"org","type":"ephemeral"}}],"messages":[{"content":[{"scope": 1.50}]}]}"#;
    assert_eq!(
        invoke(body, &["prompt-caching-scope-2026-01-05"]),
        r#"{"anthropic_version":"bedrock-2023-05-31","system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"type":"ephemeral"}}],"messages":[{"content":[{"scope":1.50}]}]}"#
    );
}

#[test]
fn the_scope_goes_wherever_a_marker_may_stand_and_nowhere_else() {
    let marked = r#"{"type":"text","cache_control":{"type":"ephemeral","scope":"org"}}"#;
    let plain = r#"{"type":"text","cache_control":{"type":"ephemeral"}}"#;
    let body = |block: &str| {
        format!(
            r#"{{"messages":[{{"content":[{block},{{"type":"tool_result","content":[{block},{{"type":"document","source":{{"type":"content","content":[{block}]}}}}]}}]}}]}}"#
        )
    };
    assert!(invoke(&body(marked), &[]).ends_with(&body(plain)[1..]));
    let own = r#""metadata":{"cache_control":{"scope":1}},"messages":[{"content":[{"type":"tool_use","input":{"cache_control":{"scope":1}}}]}]}"#;
    assert!(invoke(&format!("{{{own}"), &[]).ends_with(own));
}

#[test]
fn a_body_may_be_nested_as_deeply_as_it_likes() {
    const DEPTH: usize = 100_000;
    for (open, close) in [
        ("[", "]"),
        (r#"{"content":["#, "]}"),
        (r#"{"cache_control":"#, "}"),
        (r#"{"a":"#, "}"),
    ] {
        for (field, begin, end) in [
            ("messages", r#"[{"content":"#, "}]"),
            ("messages", "", ""),
            ("system", "", ""),
            ("tools", "", ""),
            ("metadata", "", ""),
        ] {
            let (open, close) = (open.repeat(DEPTH), close.repeat(DEPTH));
            let nested = format!(r#""{field}":{begin}{open}{{"scope":1}}{close}{end}}}"#);
            let out = invoke(&format!("{{{nested}"), &[]);
            // A member that no message has is gone with all that is in it.
            let is_gone = (field, begin, &open[..1]) == ("messages", "", "{");
            assert!(is_gone || out.ends_with(&nested), "{field} {begin}");
        }
    }
}

#[test]
fn what_is_no_object_is_an_error() {
    for body in ["", "[]", "{", "\u{0}"] {
        assert!(
            matches!(try_invoke(body), Err(TranslateError::Malformed(_))),
            "{body:?}"
        );
    }
}
