//! What the controllers share.

use std::sync::Arc;

use kube::Client;

use crate::database::Database;
use crate::events::Events;
use crate::master_secrets::MasterSecrets;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// What the controllers of a leader share; made by `run`.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// Postgres, as it is at the moment.
    pub database: Database,
    /// Publishes Events.
    pub events: Events,
    /// Counts reconciliations.
    pub metrics: Metrics,
    /// The master secrets, for copies in pool namespaces.
    pub masters: Arc<MasterSecrets>,
}
