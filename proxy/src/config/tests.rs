use super::*;

const REQUIRED: [(&str, &str); 3] = [
    ("PROXY_DATABASE_URL", "postgres://proxy:pw@db/spillway"),
    ("PROXY_KEY_HASHER_SECRET", "a-hasher-secret-of-some-length"),
    (
        "PROXY_LOCAL_ENCRYPTION_KEY",
        "0123456789abcdef0123456789abcdef",
    ),
];

fn config(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_lookup(|name| {
        extra
            .iter()
            .chain(&REQUIRED)
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

#[test]
fn what_is_built_in_holds_where_the_environment_is_silent() {
    let config = config(&[]).unwrap();
    assert_eq!(
        (
            config.listen_addr.to_string().as_str(),
            config.admin_addr.port()
        ),
        ("0.0.0.0:8080", 9090)
    );
    assert_eq!(
        config.pool,
        PoolName {
            cluster_id: "local".into(),
            namespace: "default".into(),
            name: "default".into()
        }
    );
    assert_eq!(
        config.defaults.plan_api_url.as_str(),
        "https://api.anthropic.com/"
    );
    assert_eq!(
        config.defaults.circuit.reset_timeout,
        Duration::from_mins(30)
    );
    assert_eq!(
        (config.timeouts.plan_idle, config.timeouts.bedrock_idle),
        (Duration::from_mins(2), Duration::from_mins(5))
    );
    assert_eq!(config.allowed_upstreams, AllowedUpstreams::default());
}

#[test]
fn the_environment_wins_over_what_is_built_in() {
    let config = config(&[
        ("PROXY_LISTEN_ADDR", "127.0.0.1:1"),
        ("PROXY_PLAN_API_URL", "http://127.0.0.1:9000"),
        ("PROXY_CIRCUIT_FAILURE_THRESHOLD", "7"),
        ("PROXY_STREAM_IDLE_TIMEOUT", "9"),
        ("PROXY_ACCESS_KEY_CACHE_TTL", "60"),
        ("PROXY_DRAIN_DELAY", "0"),
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9001"),
    ])
    .unwrap();
    assert_eq!(config.listen_addr.port(), 1);
    assert_eq!(config.defaults.circuit.failure_threshold, 7);
    assert_eq!(
        (config.timeouts.plan_idle, config.timeouts.bedrock_idle),
        (Duration::from_secs(9), Duration::from_secs(9))
    );
    assert_eq!(
        (config.reload_interval, config.drain_delay),
        (Duration::from_mins(1), Duration::ZERO)
    );
    for named in ["http://127.0.0.1:9000/v1", "http://127.0.0.1:9001"] {
        assert!(
            config
                .allowed_upstreams
                .check(&Url::parse(named).unwrap())
                .is_ok(),
            "{named}"
        );
    }
}

#[test]
fn one_message_names_every_wrong_variable_and_shows_no_secret() {
    let wrong = [
        ("PROXY_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("PROXY_KEY_HASHER_SECRET", "hunter2"),
        ("PROXY_LOCAL_ENCRYPTION_KEY", "hunter2"),
        ("PROXY_PLAN_API_KEY", "sk-ant-oat01-hunter2"),
        ("PROXY_PLAN_API_URL", "ftp://h"),
        ("PROXY_LISTEN_ADDR", "nowhere"),
        ("PROXY_SPOOL_MAX_RECORDS", "0"),
        ("PROXY_BODY_BUDGET_MB", "1"),
        ("PROXY_CIRCUIT_RESET_TIMEOUT", "-1"),
        ("PROXY_ALLOWED_UPSTREAMS", "https://h/path"),
        ("PROXY_LOG_LEVEL", "=="),
    ];
    let message = config(&wrong).unwrap_err().to_string();
    for (name, _) in wrong {
        assert!(message.contains(name), "{name}: {message}");
    }
    assert!(!message.contains("hunter2"), "{message}");
    let absent = Config::from_lookup(|_| None).unwrap_err().to_string();
    for (name, _) in REQUIRED {
        assert!(absent.contains(name), "{name}: {absent}");
    }
}

#[test]
fn the_sdks_own_variables_are_named_too_and_empty_ones_skipped() {
    for name in AWS_ENDPOINTS {
        for wrong in ["bedrock.example.com", "ftp://bedrock.example.com"] {
            let message = config(&[(name, wrong), ("PROXY_LISTEN_ADDR", "nowhere")])
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(&format!("\n  {name}: is not")),
                "{message}"
            );
            assert!(message.contains("PROXY_LISTEN_ADDR"), "{message}");
        }
    }
    let config = config(&[
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", " "),
        ("AWS_ENDPOINT_URL", "https://aws.example.com"),
    ])
    .unwrap();
    assert_eq!(
        config.bedrock_endpoint.unwrap().as_str(),
        "https://aws.example.com/"
    );
}

#[test]
fn no_log_level_shows_what_libraries_see_of_secrets() {
    for level in [
        "info,aws_sigv4::http_request=trace",
        "hyper=trace",
        "h2",
        "info, rustls::conn=debug",
        "[request]=trace",
        "info,spillway_proxy[{key}]=trace",
    ] {
        let message = config(&[("PROXY_LOG_LEVEL", level)])
            .unwrap_err()
            .to_string();
        assert!(message.contains("PROXY_LOG_LEVEL: "), "{level}: {message}");
    }
    for level in [
        "trace",
        "info,spillway_proxy=debug,spillway_proxy::http=trace",
    ] {
        let level = config(&[("PROXY_LOG_LEVEL", level)]).unwrap().log_level;
        assert!(level.contains("aws_sigv4=info"), "{level}");
    }
}
