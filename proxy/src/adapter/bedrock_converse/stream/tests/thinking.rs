//! Reasoning, signed, redacted and neither.

use super::*;

#[test]
fn thinking_has_its_signature_at_its_end() {
    let frames = [
        start(),
        reasoning(0, &json!({"text": "I "})),
        reasoning(0, &json!({"text": "think"})),
        reasoning(0, &json!({"signature": "c2"})),
        reasoning(0, &json!({"signature": "ln"})),
        stop(0),
        reasoning(1, &json!({"signature": "b25l"})),
        stop(1),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(context(), &frames);
    assert_eq!(
        content(&events),
        [
            json!({"type": "thinking", "thinking": "I think", "signature": "c2ln"}),
            json!({"type": "thinking", "thinking": "", "signature": "b25l"})
        ]
    );
    let signatures = events
        .iter()
        .filter(|(_, data)| data["delta"]["type"] == "signature_delta")
        .count();
    assert_eq!(signatures, 2, "clients replace a signature by the next");
}

#[test]
fn redacted_thinking_is_whole_and_decoded_once() {
    let data = "EuoBCoYBGAIiQL7a";
    // Each delta's blob is base64 of its own, with padding where it ends.
    let wire = |piece: &str| {
        let blob = base64::prelude::BASE64_STANDARD.encode(piece);
        reasoning(0, &json!({"redactedContent": blob}))
    };
    let frames = [
        start(),
        wire(&data[..5]),
        wire(""),
        wire(&data[5..12]),
        wire(&data[12..]),
        stop(0),
        text(1, "a"),
        stop(1),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(context(), &frames);
    assert_eq!(
        content(&events)[0],
        json!({"type": "redacted_thinking", "data": data})
    );
}

#[test]
fn reasoning_that_is_not_signed_is_not_shown_but_counted() {
    let frames = [
        start(),
        reasoning(0, &json!({"text": "secretly"})),
        stop(0),
        text(1, ""),
        text(1, "said"),
        stop(1),
        message_stop("end_turn"),
        metadata(),
    ];
    let mut events = Events::new(other());
    let (seen, _) = run(&mut events, &frames);
    assert!(!seen.contains("secretly"));
    assert_eq!(events.take_hidden(), "secretly".len());
    let (events, _) = read(other(), &frames);
    assert_eq!(content(&events), [json!({"type": "text", "text": "said"})]);
}

#[test]
fn reasoning_that_another_model_signed_is_shown_at_its_end() {
    let frames = [
        start(),
        reasoning(0, &json!({"text": "a\n"})),
        reasoning(0, &json!({"text": "b"})),
        reasoning(0, &json!({"signature": "s"})),
        stop(0),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(other(), &frames);
    assert_eq!(
        content(&events),
        [json!({"type": "thinking", "thinking": "a\nb", "signature": "s"})]
    );
}
