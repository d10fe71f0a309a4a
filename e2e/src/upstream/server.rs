//! The listeners: accept, serve HTTP/1.1 and HTTP/2, close and open the port as the mode says, stop gracefully.

use std::{io, net::SocketAddr, sync::Arc};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::Mode,
    handle::Upstream,
    line::{Line, Socket},
    service::{self, Shared},
};

/// Serves one upstream until `stop`; then lets running answers finish.
pub(crate) async fn serve(
    listener: TcpListener,
    upstream: Arc<Upstream>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let ended = stop.clone().cancelled_owned();
    tokio::select! {
        result = accept(listener, &upstream, &shared, &graceful) => {
            if let Err(error) = result {
                tracing::error!(%error, "listener failed");
            }
        }
        () = ended => {}
    }
    upstream.set_listening(None);
    graceful.shutdown().await;
}

async fn accept(
    listener: TcpListener,
    upstream: &Arc<Upstream>,
    shared: &Arc<Shared>,
    graceful: &GracefulShutdown,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut mode = upstream.watch_mode();
    let mut listener = Some(listener);
    loop {
        if matches!(*mode.borrow_and_update(), Mode::Refusing) {
            listener = None;
        } else if listener.is_none() {
            listener = Some(rebind(address).await?);
        }
        upstream.set_listening(Some(listener.is_some()));
        let Some(open) = &listener else {
            // The sender lives in `upstream`, so this waits for the next mode.
            let _ = mode.changed().await;
            continue;
        };
        tokio::select! {
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => connect(stream, upstream, shared, graceful),
                Err(error) => tracing::warn!(%error, "connection not accepted"),
            },
            _ = mode.changed() => {}
        }
    }
}

async fn rebind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

fn connect(
    stream: TcpStream,
    upstream: &Arc<Upstream>,
    shared: &Arc<Shared>,
    graceful: &GracefulShutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "connection lost at once");
        return;
    }
    let line = Arc::new(Line::default());
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&line)));
    let kind = upstream.kind();
    let service = {
        let (shared, line) = (Arc::clone(shared), Arc::clone(&line));
        service_fn(move |request| {
            service::handle(Arc::clone(&shared), kind, Arc::clone(&line), request)
        })
    };
    let mut mode = upstream.watch_mode();
    let connected = upstream.connected();
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let _connected = connected;
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = watcher.watch(builder.serve_connection(socket, service).into_owned());
        tokio::select! {
            // How a connection ends is the client's business, or was ordered.
            _ = connection => {}
            () = line.hung_up() => {}
            () = refusing(&mut mode) => line.reset(),
        }
    });
}

async fn refusing(mode: &mut watch::Receiver<Mode>) {
    if mode
        .wait_for(|mode| matches!(mode, Mode::Refusing))
        .await
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}
