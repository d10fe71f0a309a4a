//! The control API and the binary, as the demo and tests in other processes use them.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use spillway_e2e::upstream::{Exchange, Outcome};

use crate::support::client;

struct Program {
    child: Child,
    plan: String,
    bedrock: String,
}

impl Program {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fake-upstream"))
            .args([
                "--plan-listen",
                "127.0.0.1:0",
                "--bedrock-listen",
                "127.0.0.1:0",
                "--plan-api-key",
                "one,two",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let url = |name: &str| {
            ready
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name))
                .unwrap()
                .to_owned()
        };
        Self {
            plan: url("plan="),
            bedrock: url("bedrock="),
            child,
        }
    }

    fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "still there ten seconds after SIGTERM"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn call(client: &Client, method: Method, url: String, body: Value) -> (u16, Value) {
    let response = client
        .request(method, url)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap(),
    )
}

#[tokio::test]
async fn the_program_is_steered_over_http() {
    let mut program = Program::start();
    let client = client();
    let message = || {
        client
            .post(format!("{}/v1/messages", program.plan))
            .header("x-api-key", "two")
            .header("anthropic-version", "2023-06-01")
            .body(r#"{"model":"m","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#)
            .send()
    };
    // Either port takes the calls of both.
    let control = |path: &str| format!("{}/__control{path}", program.bedrock);

    let rules = json!([
        {"reply": {"fail": {"status": 429, "retry_after": 3}}},
        {"when": {"model": "m"}, "reply": {"message": {"text": "slow and steady wins", "faults": [{"at": {"deltas": 1}, "action": {"hold": {"gate": "g"}}}]}}},
    ]);
    assert_eq!(
        call(&client, Method::POST, control("/plan/rules"), rules)
            .await
            .0,
        200
    );
    let limited = message().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    let held = message().await.unwrap();
    let (status, gate) = call(
        &client,
        Method::GET,
        control("/gates/g?held=1&timeout_ms=5000"),
        json!(null),
    )
    .await;
    assert_eq!((status, &gate["held"]), (200, &json!(1)));
    assert_eq!(
        call(
            &client,
            Method::POST,
            control("/gates/g/release"),
            json!(null)
        )
        .await
        .0,
        200
    );
    assert!(held.text().await.unwrap().contains("message_stop"));

    let url = control("/requests?upstream=plan&at_least=2&timeout_ms=5000");
    let (status, seen) = call(&client, Method::GET, url, json!(null)).await;
    let seen: Vec<Exchange> = serde_json::from_value(seen).unwrap();
    assert_eq!(
        (status, seen.len(), seen[1].answer.outcome),
        (200, 2, Outcome::Complete)
    );
    assert!(seen[1].header("x-api-key").unwrap().starts_with("sha256:"));
    call(&client, Method::DELETE, control("/requests"), json!(null)).await;
    let (status, _) = call(
        &client,
        Method::GET,
        control("/requests?at_least=1&timeout_ms=50"),
        json!(null),
    )
    .await;
    assert_eq!(status, 408);

    call(
        &client,
        Method::PUT,
        control("/plan/mode"),
        json!({"mode": "down"}),
    )
    .await;
    assert_eq!(message().await.unwrap().status(), 503);
    call(
        &client,
        Method::PUT,
        control("/plan/mode"),
        json!({"mode": "refusing"}),
    )
    .await;
    // A new client: one that has connections open may see them reset first.
    let error = self::client().get(&program.plan).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    let (_, overview) = call(&client, Method::POST, control("/reset"), json!(null)).await;
    assert_eq!(
        overview["plan"],
        json!({"mode": {"mode": "up"}, "rules": 0, "requests": 0})
    );
    assert_eq!(message().await.unwrap().status(), 200);

    drop(client);
    assert!(program.terminate().success());
}

#[tokio::test]
async fn mistakes_in_control_calls_are_named() {
    let program = Program::start();
    let client = client();
    for (method, path, body, expected) in [
        (
            Method::POST,
            "/plan/rules",
            json!({"reply": {"fail": {"status": 99}}}),
            "fail.status 99",
        ),
        (
            Method::POST,
            "/plan/rules",
            json!({"reply": {"fail": {"statos": 500}}}),
            "unknown field `statos`",
        ),
        (
            Method::POST,
            "/plan/rules",
            json!({"reply": {"message": {"headers": {"a b": "c"}}}}),
            "\"a b\"",
        ),
        (
            Method::PUT,
            "/plan/mode",
            json!({"mode": "sideways"}),
            "unknown variant `sideways`",
        ),
        (
            Method::GET,
            "/requests?at_least=many",
            json!(null),
            "at_least: \"many\" is no number",
        ),
        (
            Method::GET,
            "/elsewhere",
            json!(null),
            "no such control call",
        ),
    ] {
        let (status, error) = call(
            &client,
            method,
            format!("{}/__control{path}", program.plan),
            body,
        )
        .await;
        assert!((400..500).contains(&status));
        let error = error["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error}");
    }
}
