//! The whole product on a real cluster: installed with helm as a user does, asked by the clients that users have.
//!
//! `hack/test.sh cluster` (or `make test-cluster`) brings cluster and images. By hand: `KUBECONFIG` (or
//! `SPILLWAY_TEST_KUBECONFIG`) names a cluster whose Service and pod addresses this machine reaches,
//! `SPILLWAY_IMAGE_{OPERATOR,PROXY,FAKE_UPSTREAM,POSTGRES}` name the images, and `kubectl` and `helm` are on the PATH.
//! `SPILLWAY_TEST_KEEP=1` leaves the installation behind, and a second run uses it.
//!
//! One installation serves all tests. Those that disturb nobody run side by side, each with namespaces, a pool and
//! upstreams of its own; those that stop Postgres or the operator run alone; the uninstall comes last.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]
#![allow(unreachable_pub, reason = "one program: its modules are no interface")]

mod accounting;
mod circuits;
mod conditions;
mod deletion;
mod drain;
mod leaks;
mod manifests;
mod operator;
mod outage;
mod quickstart;
mod revocation;
mod sdk;
mod secrets;
mod support;
mod uninstall;

use std::process::ExitCode;

use support::suite::{Suite, When};

fn main() -> ExitCode {
    let mut suite = Suite::default();
    serving(&mut suite);
    refusing(&mut suite);
    breaking(&mut suite);
    suite.run()
}

/// Requests are served, refused and counted.
fn serving(suite: &mut Suite) {
    suite.add(
        When::SideBySide,
        "team-a",
        "quickstart::resources_in_answer_out_usage_back_in_status",
        quickstart::run,
    );
    suite.add(
        When::SideBySide,
        "sdk",
        "sdk::the_official_python_sdk_gets_the_same_message_from_plan_and_bedrock",
        sdk::run,
    );
    suite.add(
        When::SideBySide,
        "deleted",
        "revocation::a_deleted_key_is_refused_by_every_proxy_within_a_second_and_its_history_stays",
        revocation::deleted,
    );
    suite.add(
        When::SideBySide,
        "standing",
        "revocation::disabled_suspended_and_expired_keys_say_so_and_heal",
        revocation::standing,
    );
    suite.add(
        When::SideBySide,
        "killed",
        "accounting::a_killed_proxy_accounts_for_every_request_once",
        accounting::killed,
    );
    suite.add(
        When::SideBySide,
        "drain",
        "drain::a_stream_in_flight_outlives_the_deletion_of_its_pod",
        drain::stream,
    );
    suite.add(
        When::SideBySide,
        "rolling",
        "drain::rolling_a_pool_loses_no_request",
        drain::rolling,
    );
    suite.add(
        When::SideBySide,
        "circuit",
        "circuits::an_open_circuit_is_shown_shared_and_reset_by_annotation",
        circuits::shown_and_reset,
    );
    suite.add(
        When::SideBySide,
        "refused",
        "circuits::a_refused_plan_key_is_an_event_and_a_new_one_is_tried_at_once",
        circuits::refused_key,
    );
}

/// What cannot work is said, and heals.
fn refusing(suite: &mut Suite) {
    suite.add(
        When::SideBySide,
        "lost",
        "secrets::a_lost_secret_gets_a_new_key_with_an_event_and_the_old_one_lives_on",
        secrets::lost,
    );
    suite.add(
        When::SideBySide,
        "foreign",
        "secrets::a_foreign_secret_in_the_way_is_left_alone_until_it_is_gone",
        secrets::foreign,
    );
    suite.add(
        When::SideBySide,
        "no-user",
        "conditions::a_key_without_its_user_says_so_and_heals",
        conditions::user_missing,
    );
    suite.add(
        When::SideBySide,
        "no-entry",
        "conditions::a_secret_without_the_entry_is_named_with_the_fix_and_heals",
        conditions::entry_missing,
    );
    suite.add(
        When::SideBySide,
        "oauth",
        "conditions::an_oauth_token_is_refused_as_plan_key_and_a_console_key_heals",
        conditions::oauth_token,
    );
    suite.add(
        When::SideBySide,
        "not-allowed",
        "conditions::a_namespace_that_the_pool_does_not_serve_says_so_and_heals",
        conditions::not_allowed,
    );
    suite.add(
        When::SideBySide,
        "elsewhere",
        "conditions::a_pool_outside_the_pool_namespaces_gets_no_proxies",
        conditions::pool_elsewhere,
    );
    suite.add(
        When::SideBySide,
        "malformed",
        "manifests::malformed_ones_are_refused_with_the_fix",
        manifests::malformed,
    );
}

/// Postgres and the operator are broken on purpose; what leaked is looked for at the end.
fn breaking(suite: &mut Suite) {
    suite.add(
        When::Alone,
        "away",
        "outage::without_postgres_known_keys_are_served_and_usage_arrives_once_afterwards",
        outage::serving,
    );
    suite.add(
        When::Alone,
        "restart",
        "outage::a_proxy_that_starts_without_postgres_serves_the_keys_it_knew",
        outage::restart,
    );
    suite.add(
        When::Alone,
        "gone",
        "deletion::without_postgres_a_deletion_lets_go_and_takes_effect_on_its_return",
        deletion::without_postgres,
    );
    suite.add(
        When::Alone,
        "sweep",
        "deletion::a_sweep_ends_rows_without_resource_and_never_those_of_another_cluster",
        deletion::sweep,
    );
    suite.add(
        When::Alone,
        "takeover",
        "operator::a_lost_leader_is_replaced_within_twenty_seconds",
        operator::takeover,
    );
    suite.add(
        When::Alone,
        "minting",
        "operator::killed_while_it_makes_keys_it_mints_none_twice",
        operator::minting,
    );
    suite.add(
        When::Alone,
        "unchanged",
        "operator::a_restarted_operator_writes_nothing_where_nothing_changed",
        operator::unchanged,
    );
    suite.add(
        When::Alone,
        "leaks",
        "leaks::no_key_or_credential_is_anywhere_but_in_its_secret",
        leaks::run,
    );
    suite.add(
        When::Last,
        "uninstall",
        "uninstall::it_keeps_definitions_resources_and_master_secrets_and_nothing_hangs",
        uninstall::run,
    );
}
