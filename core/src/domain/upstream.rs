//! Which upstreams a credential may be sent to: `PROXY_ALLOWED_UPSTREAMS`, the same rules in operator and proxy.
//!
//! An entry is a host (`api.anthropic.com`), a pattern (`*.amazonaws.com`: any name below) or a whole origin
//! (`http://127.0.0.1:9000`). Hosts and patterns allow https to public addresses on any port. Plain http, and addresses that
//! are not public, need the whole origin.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use url::{Host, Origin, Url};

/// What is allowed when nothing is configured.
pub const DEFAULT_ALLOWED_UPSTREAMS: &str = "api.anthropic.com,*.amazonaws.com";

/// Why an entry of the list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is not a host such as api.anthropic.com, a pattern such as *.amazonaws.com or an origin such as https://host:8443"
)]
pub struct AllowedUpstreamError {
    /// The entry as it was given.
    pub entry: String,
}

/// Why a URL is refused as an upstream. The message names the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamRefused {
    /// Neither http nor https, or without a host.
    #[error("an upstream URL must begin with https://")]
    NotHttp,
    /// User name, password, query or fragment.
    #[error("an upstream URL must hold neither credentials nor a query nor a fragment")]
    NotPlain,
    /// Nothing in the list names the host.
    #[error("host {host} is not among the allowed upstreams: add it to PROXY_ALLOWED_UPSTREAMS")]
    Host {
        /// The URL's host.
        host: String,
    },
    /// Plain http to an origin that is not listed whole.
    #[error(
        "plain http is refused: use https, or list the whole origin {origin} in PROXY_ALLOWED_UPSTREAMS"
    )]
    PlainHttp {
        /// Scheme, host and port.
        origin: String,
    },
    /// An address that is not public, in an origin that is not listed whole.
    #[error(
        "address {address} is not public: list the whole origin {origin} in PROXY_ALLOWED_UPSTREAMS if it is meant"
    )]
    NotPublic {
        /// The address.
        address: IpAddr,
        /// Scheme, host and port.
        origin: String,
    },
}

/// Which addresses a permitted upstream may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses only: every address that its name resolves to must pass [`is_public`].
    Public,
    /// Any, since the whole origin is listed.
    Any,
}

/// The list of allowed upstreams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedUpstreams {
    hosts: Vec<HostPattern>,
    origins: Vec<Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exact(Host),
    /// Names that end so; begins with a dot.
    Below(String),
}

impl HostPattern {
    fn matches(&self, host: &Host<&str>) -> bool {
        match (self, host) {
            (Self::Exact(exact), host) => exact == host,
            (Self::Below(suffix), Host::Domain(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            (Self::Below(_), _) => false,
        }
    }
}

impl Default for AllowedUpstreams {
    fn default() -> Self {
        let hosts = vec![
            HostPattern::Exact(Host::Domain("api.anthropic.com".to_owned())),
            HostPattern::Below(".amazonaws.com".to_owned()),
        ];
        Self {
            hosts,
            origins: Vec::new(),
        }
    }
}

impl FromStr for AllowedUpstreams {
    type Err = AllowedUpstreamError;

    /// Reads a list separated by commas. It replaces the default; an empty list allows nothing but added origins.
    fn from_str(list: &str) -> Result<Self, AllowedUpstreamError> {
        let mut allowed = Self {
            hosts: Vec::new(),
            origins: Vec::new(),
        };
        for entry in list
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            allowed.add(entry).ok_or_else(|| AllowedUpstreamError {
                entry: entry.to_owned(),
            })?;
        }
        Ok(allowed)
    }
}

impl AllowedUpstreams {
    fn add(&mut self, entry: &str) -> Option<()> {
        if entry.contains("://") {
            let url = Url::parse(entry).ok()?;
            let bare = matches!(url.path(), "" | "/") && is_plain(&url);
            (bare && is_http(&url)).then(|| self.origins.push(url.origin()))
        } else if let Some(domain) = entry.strip_prefix("*.") {
            let Host::Domain(domain) = Host::parse(domain).ok()? else {
                return None;
            };
            (!domain.contains('*'))
                .then(|| self.hosts.push(HostPattern::Below(format!(".{domain}"))))
        } else {
            let host = Host::parse(entry).ok()?;
            (!entry.contains('*')).then(|| self.hosts.push(HostPattern::Exact(host)))
        }
    }

    /// Allows the whole origin of a URL that the environment itself names.
    #[must_use]
    pub fn with_origin_of(mut self, url: &Url) -> Self {
        self.origins.push(url.origin());
        self
    }

    /// Whether a credential may be sent to `url`, and which addresses the host may have.
    ///
    /// # Errors
    /// [`UpstreamRefused`] with the reason and the fix.
    pub fn check(&self, url: &Url) -> Result<Reach, UpstreamRefused> {
        let host = url
            .host()
            .filter(|_| is_http(url))
            .ok_or(UpstreamRefused::NotHttp)?;
        if !is_plain(url) {
            return Err(UpstreamRefused::NotPlain);
        }
        let origin = url.origin();
        if self.origins.contains(&origin) {
            return Ok(Reach::Any);
        }
        let named = self.hosts.iter().any(|pattern| pattern.matches(&host));
        let address = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        match address.filter(|address| !is_public(*address)) {
            Some(address) => Err(UpstreamRefused::NotPublic {
                address,
                origin: origin.ascii_serialization(),
            }),
            None if !named => Err(UpstreamRefused::Host {
                host: host.to_string(),
            }),
            None if url.scheme() != "https" => Err(UpstreamRefused::PlainHttp {
                origin: origin.ascii_serialization(),
            }),
            None => Ok(Reach::Public),
        }
    }
}

impl fmt::Display for AllowedUpstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.hosts.iter().map(|pattern| match pattern {
            HostPattern::Exact(host) => host.to_string(),
            HostPattern::Below(suffix) => format!("*{suffix}"),
        });
        let entries: Vec<String> = hosts
            .chain(self.origins.iter().map(Origin::ascii_serialization))
            .collect();
        f.write_str(&entries.join(","))
    }
}

fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

fn is_plain(url: &Url) -> bool {
    url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Whether `address` is on the public internet: not loopback, link-local (where clouds serve credentials), private, shared,
/// multicast, documentation or otherwise set aside by the IANA special-purpose address registries.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => {
            embedded_v4(address).map_or_else(|| is_public_v6(address), is_public_v4)
        }
    }
}

/// Global unicast is `2000::/3`, of which `2001::/23` is for protocols, `2001:db8::/32` and `3fff::/20` for documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    segments[0] & 0xe000 == 0x2000
        && !(segments[0] == 0x2001 && (segments[1] == 0x0db8 || segments[1] < 0x0200))
        && !(segments[0] == 0x3fff && segments[1] < 0x1000)
}

/// The IPv4 address that is reached through a mapped (`::ffff:0:0/96`), NAT64 (`64:ff9b::/96`) or 6to4 (`2002::/16`) one.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let ([0, 0, 0, 0, 0, 0xffff, high, low]
    | [0x0064, 0xff9b, 0, 0, 0, 0, high, low]
    | [0x2002, high, low, ..]) = address.segments()
    else {
        return None;
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && b & 0xfe == 18))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, url: &str) -> Result<Reach, UpstreamRefused> {
        list.parse::<AllowedUpstreams>()
            .unwrap()
            .check(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_default_is_what_its_text_says() {
        assert_eq!(
            DEFAULT_ALLOWED_UPSTREAMS
                .parse::<AllowedUpstreams>()
                .unwrap(),
            AllowedUpstreams::default()
        );
        assert_eq!(
            AllowedUpstreams::default().to_string(),
            DEFAULT_ALLOWED_UPSTREAMS
        );
    }

    #[test]
    fn hosts_and_patterns_allow_https_to_public_addresses() {
        for url in [
            "https://api.anthropic.com",
            "https://API.anthropic.com:8443/prefix/",
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            "https://vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
        ] {
            assert_eq!(
                check(DEFAULT_ALLOWED_UPSTREAMS, url),
                Ok(Reach::Public),
                "{url}"
            );
        }
    }

    #[test]
    fn other_hosts_are_refused() {
        for (url, host) in [
            ("https://evil.example", "evil.example"),
            ("https://amazonaws.com", "amazonaws.com"),
            ("https://notamazonaws.com", "notamazonaws.com"),
            (
                "https://api.anthropic.com.evil.example",
                "api.anthropic.com.evil.example",
            ),
            ("https://93.184.215.14", "93.184.215.14"),
        ] {
            assert_eq!(
                check(DEFAULT_ALLOWED_UPSTREAMS, url),
                Err(UpstreamRefused::Host {
                    host: host.to_owned()
                }),
                "{url}"
            );
        }
    }

    #[test]
    fn plain_http_and_private_addresses_need_the_whole_origin() {
        let origin = "http://127.0.0.1:9000";
        assert_eq!(check(origin, "http://127.0.0.1:9000/base"), Ok(Reach::Any));
        for url in [
            "http://127.0.0.1:9001",
            "https://127.0.0.1:9000",
            "http://[::ffff:127.0.0.1]:9000",
            "http://localhost:9000",
        ] {
            assert!(check(origin, url).is_err(), "{url}");
        }
        assert!(matches!(
            check("127.0.0.1", "https://127.0.0.1"),
            Err(UpstreamRefused::NotPublic { .. })
        ));
        assert!(matches!(
            check("api.anthropic.com", "http://api.anthropic.com"),
            Err(UpstreamRefused::PlainHttp { .. })
        ));
        assert_eq!(
            check("https://10.0.0.7:443", "https://10.0.0.7"),
            Ok(Reach::Any),
            "default ports are the same origin"
        );
    }

    #[test]
    fn an_origin_that_the_environment_names_is_added() {
        let url = Url::parse("http://fake-upstream.default.svc:8080/v1").unwrap();
        let allowed = AllowedUpstreams::default();
        assert!(allowed.check(&url).is_err());
        assert_eq!(allowed.with_origin_of(&url).check(&url), Ok(Reach::Any));
    }

    #[test]
    fn urls_with_more_than_a_place_are_refused() {
        for url in [
            "https://user@api.anthropic.com",
            "https://:pw@api.anthropic.com",
            "https://api.anthropic.com/?a=b",
            "https://api.anthropic.com/#a",
        ] {
            assert_eq!(
                check(DEFAULT_ALLOWED_UPSTREAMS, url),
                Err(UpstreamRefused::NotPlain),
                "{url}"
            );
        }
        assert_eq!(
            check(DEFAULT_ALLOWED_UPSTREAMS, "ftp://api.anthropic.com"),
            Err(UpstreamRefused::NotHttp)
        );
    }

    #[test]
    fn wrong_entries_are_named() {
        for entry in [
            "*",
            "*.",
            "a.*.com",
            "https://host/path",
            "ftp://host",
            "https://u:p@host",
            "a b",
            "*.10.0.0.1",
        ] {
            assert_eq!(
                entry.parse::<AllowedUpstreams>(),
                Err(AllowedUpstreamError {
                    entry: entry.to_owned()
                }),
                "{entry}"
            );
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.0.1",
            "198.18.0.1",
            "203.0.113.5",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "::10.0.0.1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "8.8.8.8",
            "100.63.255.255",
            "172.15.0.1",
            "198.20.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
