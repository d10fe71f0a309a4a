//! Where a call goes, what happens when that fails, and what the client sees of it.

mod answer;
mod attempt;
mod bedrock_format;
mod body;
mod breaker;
mod circuits;
mod class;
mod collect;
mod count;
mod encoded;
mod end;
mod estimate;
mod frame_relay;
mod image_size;
mod ledger;
mod pace;
mod permit;
mod plan_query;
mod relay;
mod shared;
mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use spillway_core::domain::usage::{FallbackReason, Provider};
use uuid::Uuid;

use self::answer::Answer;
use self::attempt::{GivenUp, Patience};
pub use self::bedrock_format::{BedrockAsked, BedrockFormat};
pub use self::body::RelayBody;
pub use self::breaker::{Finding, Gate};
pub use self::circuits::{Admittance, CircuitStore, LocalCircuits, OpenCircuit, Report};
use self::class::Failure;
pub use self::count::{Counter, ESTIMATED};
pub use self::estimate::input_tokens as estimate_input_tokens;
use self::ledger::Ledger;
use self::permit::Permit;
pub use self::plan_query::PlanAnswer;
pub use self::shared::{SharedCircuits, SharedSettings};
use self::target::bedrock_target;
use crate::adapter::ErrorBody;
use crate::adapter::bedrock::{Api, Bedrock, BedrockTarget};
use crate::adapter::plan::PlanAdapter;
use crate::call::{Call, PlanCredential, Ticket};

/// How long the upstreams may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// `PROXY_PLAN_FIRST_BYTE_TIMEOUT`: until a stream's first byte.
    pub plan_first_byte: Duration,
    /// `PROXY_PLAN_REQUEST_TIMEOUT`: until the end of an answer that is not streamed.
    pub plan_request: Duration,
    /// `PROXY_STREAM_IDLE_TIMEOUT`: between two events of the Plan that are no pings.
    pub plan_idle: Duration,
    /// The same for Bedrock.
    pub bedrock_idle: Duration,
    /// `PROXY_PLAN_HOLD_BACK`: how long a stream is held back for its first content.
    pub hold_back: Duration,
}

/// Serves admitted calls from the Plan and Bedrock.
pub struct Router {
    plan: PlanAdapter,
    bedrock: Bedrock,
    circuits: Arc<dyn CircuitStore>,
    timeouts: Timeouts,
}

impl Router {
    /// A router over these upstreams.
    pub fn new(
        plan: PlanAdapter,
        bedrock: Bedrock,
        circuits: Arc<dyn CircuitStore>,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            plan,
            bedrock,
            circuits,
            timeouts,
        }
    }

    /// Serves a call. `ticket` is closed before the response's last bytes leave; also when the future or the response's body
    /// is dropped because the client left, which cancels the request upstream.
    pub async fn serve(&self, call: Call, ticket: Ticket) -> Response<RelayBody> {
        let ledger = Ledger::new(&call, ticket);
        let served = match (call.admission.caller.plan.as_ref(), bedrock_target(&call)) {
            (None, None) => Err(GivenUp {
                ledger,
                answer: no_upstream(call.admission.request_id),
            }),
            (None, Some(target)) => {
                self.fall_back(
                    &call,
                    &target,
                    ledger,
                    FallbackReason::NoPlanCredential,
                    Patience::Last,
                )
                .await
            }
            (Some(plan), None) => {
                let admittance = self
                    .circuits
                    .admit(plan.id, &call.head.model, Instant::now());
                let permit = self.permit(plan, &call, admittance);
                self.ask_plan(&call, plan, ledger, permit, Patience::Last)
                    .await
            }
            (Some(plan), Some(target)) => {
                self.serve_from_either(&call, plan, &target, ledger).await
            }
        };
        match served {
            Ok(response) => response,
            Err(given_up) => given_up.into_response().await,
        }
    }

    /// Whether the circuits that were open before this process began are known, as far as they can be.
    pub fn is_loaded(&self) -> bool {
        self.circuits.is_loaded()
    }

    /// The circuits that are open or half-open, for metrics.
    pub fn open_circuits(&self) -> Vec<OpenCircuit> {
        self.circuits.open()
    }

    async fn serve_from_either(
        &self,
        call: &Call,
        plan: &Arc<PlanCredential>,
        target: &BedrockTarget,
        ledger: Box<Ledger>,
    ) -> Result<Response<RelayBody>, GivenUp> {
        let admittance = self
            .circuits
            .admit(plan.id, &call.head.model, Instant::now());
        let mut permit = self.permit(plan, call, admittance);
        if matches!(permit.claim(admittance).await, Gate::Open { .. }) {
            let first = match self
                .fall_back(
                    call,
                    target,
                    ledger,
                    FallbackReason::CircuitOpen,
                    Patience::HoldBack,
                )
                .await
            {
                Err(first) if first.answer.failure != Failure::Spent => first,
                served => return served,
            };
            let second = self
                .ask_plan(call, plan, first.ledger, permit, Patience::Last)
                .await;
            return second.map_err(|second| second.or_better(first.answer));
        }
        let first = match self
            .ask_plan(call, plan, ledger, permit, Patience::HoldBack)
            .await
        {
            Err(first) => first,
            served => return served,
        };
        // A turn that another model gave is that model's to go on with: the Plan refuses it, and not by the client's fault.
        let anothers = || {
            let is_anothers = !target.is_claude() && first.answer.misses_thinking();
            is_anothers.then_some(FallbackReason::Feature)
        };
        let Some(reason) = first.answer.failure.reason().or_else(anothers) else {
            return Err(first);
        };
        let second = self
            .fall_back(call, target, first.ledger, reason, Patience::Last)
            .await;
        second.map_err(|second| second.or_better(first.answer))
    }

    async fn ask_plan(
        &self,
        call: &Call,
        plan: &Arc<PlanCredential>,
        mut ledger: Box<Ledger>,
        permit: Permit,
        patience: Patience,
    ) -> Result<Response<RelayBody>, GivenUp> {
        ledger.begin(Provider::Plan, None);
        self.ask(&self.plan, call, plan, ledger, Some(permit), patience)
            .await
    }

    async fn fall_back(
        &self,
        call: &Call,
        target: &BedrockTarget,
        mut ledger: Box<Ledger>,
        reason: FallbackReason,
        patience: Patience,
    ) -> Result<Response<RelayBody>, GivenUp> {
        ledger.fall_back(reason);
        ledger.begin(Provider::Bedrock, Some(&target.model_id));
        // The SDK's futures are large, and a call that the Plan serves need not carry them.
        match target.api {
            Api::InvokeModel => {
                Box::pin(self.ask(&self.bedrock.invoke, call, target, ledger, None, patience)).await
            }
            Api::Converse => {
                Box::pin(self.ask(&self.bedrock.converse, call, target, ledger, None, patience))
                    .await
            }
        }
    }

    fn permit(&self, plan: &PlanCredential, call: &Call, admittance: Admittance) -> Permit {
        Permit::new(
            &self.circuits,
            plan.id,
            &call.head.model,
            call.admission.pool.circuit,
            admittance,
        )
    }
}

fn no_upstream(call: Uuid) -> Answer {
    let error = ErrorBody::new(
        "api_error",
        "no upstream is configured for this key: its pool has neither a Plan key nor a Bedrock model",
    );
    Answer::own(
        Provider::Plan,
        Failure::Account,
        StatusCode::SERVICE_UNAVAILABLE,
        &error,
        call,
    )
}
