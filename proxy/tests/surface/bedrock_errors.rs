//! Errors in Bedrock's format: Bedrock's own and the proxy's.

use reqwest::Response;
use serde_json::Value;
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{Action, Failure, Point, Reply, Script};

use crate::bedrock_format::{ENCODED, body, call, frames};
use crate::support::{World, client, until_status};

async fn error_of(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers.contains_key("x-amzn-requestid"));
    let kind = headers["x-amzn-errortype"].to_str().unwrap().to_owned();
    (status, kind, response.json().await.unwrap())
}

#[tokio::test]
async fn bedrocks_errors_pass_unless_they_tell_of_an_account() {
    let world = World::create().await;
    let proxy = world.start().await;
    for (failure, kind, shown) in [
        (
            Failure::status(429).retry_after(3),
            "ThrottlingException",
            "Too many requests, please wait before trying again.",
        ),
        (
            Failure::status(400).message("prompt is too long: 201000 tokens > 200000 maximum"),
            "ValidationException",
            "prompt is too long: 201000 tokens > 200000 maximum",
        ),
        (
            Failure::status(403)
                .message("User: arn:aws:iam::123456789012:user/x is not authorized"),
            "AccessDeniedException",
            "Bedrock refused its credential for this model",
        ),
        (
            Failure::status(400).message("account 123456789012 has no such profile"),
            "ValidationException",
            "Bedrock refused the request as invalid",
        ),
    ] {
        let status = failure.status;
        world.fakes.bedrock.next(failure);
        let response = call(&proxy, world.key.expose(), ENCODED, "converse").send();
        let response = response.await.unwrap();
        assert_eq!(
            response.headers().contains_key("retry-after"),
            status == 429
        );
        let (got, got_kind, error) = error_of(response).await;
        assert_eq!(got, status);
        // The name is followed by a URL, as the service sends it.
        assert_eq!(got_kind.split(':').next(), Some(kind));
        assert_eq!(error["message"], shown);
    }
    let statuses: Vec<_> = world
        .rows(4)
        .await
        .into_iter()
        .map(|row| (row.status, row.http_status, row.input_tokens))
        .collect();
    let row = |status: &str, code| (status.to_owned(), code, 0);
    assert_eq!(
        statuses,
        [
            row("upstream_error", 429),
            row("client_error", 400),
            row("upstream_error", 403),
            row("client_error", 400)
        ]
    );
    assert!(
        proxy.log().contains("arn:aws:iam::123456789012:user/x"),
        "the owner reads it"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_an_exception_and_is_estimated() {
    let world = World::create().await;
    let proxy = world.start().await;
    for path in ["invoke-with-response-stream", "converse-stream"] {
        for action in [Action::Cut, Action::CutInside, Action::Reset] {
            let script = Script::text("some text that is long enough to be cut in the middle");
            world.fakes.bedrock.next(script.fault(Point::End, action));
            let response = call(&proxy, world.key.expose(), ENCODED, path).send();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let frames = frames(response.bytes().await.unwrap());
            let (kind, payload) = frames.last().unwrap();
            assert_eq!(kind, "internalServerException", "{path}");
            assert!(payload["message"].as_str().unwrap().contains("broke off"));
        }
    }
    for row in world.rows(6).await {
        assert_eq!(
            (row.status.as_str(), row.estimated),
            ("upstream_error", true)
        );
        assert!(row.output_tokens > 0, "{row:?}");
    }
}

#[tokio::test]
async fn an_exception_in_a_stream_passes_unless_it_tells_of_an_account() {
    let world = World::create().await;
    let proxy = world.start().await;
    for (message, shown) in [
        ("slow down", "slow down"),
        (
            "arn:aws:bedrock:us-east-1:123456789012:x",
            "Bedrock is throttling",
        ),
    ] {
        let error = Action::Error {
            error_type: "throttlingException".to_owned(),
            message: message.to_owned(),
        };
        world
            .fakes
            .bedrock
            .next(Script::default().fault(Point::Content, error));
        let response = call(&proxy, world.key.expose(), ENCODED, "converse-stream").send();
        let frames = frames(response.await.unwrap().bytes().await.unwrap());
        let (kind, payload) = frames.last().unwrap();
        assert_eq!(kind, "throttlingException");
        assert_eq!(payload["message"], shown);
    }
    let rows = world.rows(2).await;
    assert!(
        rows.iter().all(|row| row.status == "upstream_error"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn bedrock_being_away_is_an_error_in_its_shape() {
    let world = World::create().await;
    let proxy = world.start().await;
    world.fakes.bedrock.next(Reply::Close);
    let response = call(&proxy, world.key.expose(), ENCODED, "invoke").send();
    let (status, kind, _) = error_of(response.await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (502, "InternalServerException"));
    let rows = world.rows(1).await;
    assert_eq!(rows[0].status, "upstream_error");
}

#[tokio::test]
async fn refusals_of_the_proxys_own_have_bedrocks_shape() {
    let world = World::create().await;
    let proxy = world.start().await;
    let narrow = AccessKeyToken::generate().unwrap();
    world
        .tenant
        .write_key("narrow", &narrow, |key| {
            key.allowed_models = vec!["claude-haiku-*".to_owned()];
        })
        .await;
    until_status(&proxy, narrow.expose(), 400).await;
    let key = world.key.expose();
    for (method, path, status, kind) in [
        (
            "POST",
            format!("/ak/sk-spw-x/bedrock/model/{ENCODED}/invoke"),
            401,
            "UnrecognizedClientException",
        ),
        (
            "POST",
            format!("/ak/{key}/bedrock/model/{ENCODED}/unheard-of"),
            404,
            "UnknownOperationException",
        ),
        (
            "GET",
            format!("/ak/{key}/bedrock/model/{ENCODED}/invoke"),
            405,
            "UnknownOperationException",
        ),
        (
            "POST",
            format!("/ak/{key}/bedrock/model/%20/invoke"),
            400,
            "ValidationException",
        ),
        (
            "POST",
            format!("/ak/{}/bedrock/model/{ENCODED}/invoke", narrow.expose()),
            400,
            "ValidationException",
        ),
    ] {
        let response = client()
            .request(method.parse().unwrap(), format!("{}{path}", proxy.url()))
            .body(body("invoke"))
            .send()
            .await
            .unwrap();
        if status == 401 {
            assert_eq!(response.headers()["x-should-retry"], "false");
        }
        let (got, got_kind, error) = error_of(response).await;
        assert_eq!((got, got_kind.as_str()), (status, kind), "{path}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(world.fakes.bedrock.request_count(), 0);
    let rows = world.rows(1).await;
    assert!(
        rows.iter().any(|row| row.status == "blocked"
            && row.http_status == 400
            && row.key_name == "narrow")
    );
}

#[tokio::test]
async fn without_a_credential_the_error_says_so() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| pool.fallback_enabled = Some(false))
        .await;
    let proxy = world.start().await;
    let response = call(&proxy, world.key.expose(), ENCODED, "invoke").send();
    let (status, kind, error) = error_of(response.await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (403, "AccessDeniedException"));
    assert!(error["message"].as_str().unwrap().contains("credential"));
    let rows = world.rows(1).await;
    assert_eq!(
        (rows[0].status.as_str(), rows[0].http_status),
        ("blocked", 403)
    );
}
