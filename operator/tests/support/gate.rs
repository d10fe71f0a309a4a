//! A TCP forwarder that can be shut: an outage of the server behind it, as its clients see it.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use url::Url;

/// Forwards connections to one server while it is open. Shut, it ends those there are and refuses new ones.
pub struct Gate {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Gate {
    /// An open gate in front of the server of `url`.
    pub async fn before(url: &Url) -> Self {
        let target = (
            url.host_str().expect("a host").to_owned(),
            url.port_or_known_default().unwrap_or(5432),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the gate's address");
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, mut state) = (target.clone(), state.clone());
                if !*state.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut client = client;
                    let Ok(mut server) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }

    /// `url` with the gate in place of its server.
    pub fn through(&self, url: &Url) -> Url {
        let mut url = url.clone();
        url.set_host(Some(&self.address.ip().to_string()))
            .expect("an IP address is a host");
        url.set_port(Some(self.address.port()))
            .expect("a port can be set");
        url
    }

    /// Ends every connection and refuses new ones.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}
