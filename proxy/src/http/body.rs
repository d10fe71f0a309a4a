//! Request bodies: read once, limited in size and time, out of a byte budget that all requests of the pod share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use tokio::time::{Instant, timeout_at};

use crate::http::error::{ErrorType, Refusal};
use crate::http::gzip;

/// What the Messages API takes.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// A client that sends nothing for this long is given up,
const IDLE: Duration = Duration::from_mins(1);
/// and so is one whose body is not here after this long, however it trickles.
const TOTAL: Duration = Duration::from_mins(5);
/// A declared length is believed up to here; beyond, memory and budget grow with what arrives.
const MAX_UPFRONT: usize = 256 * 1024;

/// The bytes that request bodies may hold at one time on this pod.
#[derive(Debug, Clone)]
pub struct ByteBudget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    left: AtomicUsize,
    held: IntGauge,
}

impl ByteBudget {
    /// A budget of `bytes`, shown in `held`.
    pub fn new(bytes: usize, held: IntGauge) -> Self {
        Self(Arc::new(Inner {
            left: AtomicUsize::new(bytes),
            held,
        }))
    }

    pub(super) fn take(&self, bytes: usize) -> Option<Share> {
        self.reserve(bytes).then(|| Share {
            budget: self.clone(),
            bytes,
        })
    }

    fn give_back(&self, bytes: usize) {
        self.0.left.fetch_add(bytes, Ordering::Relaxed);
        self.0.held.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn reserve(&self, bytes: usize) -> bool {
        let taken = self
            .0
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            })
            .is_ok();
        if taken {
            self.0.held.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        taken
    }
}

/// A part of the budget, given back on drop.
pub(super) struct Share {
    budget: ByteBudget,
    bytes: usize,
}

impl Share {
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let grown = more == 0 || self.budget.reserve(more);
        if grown {
            self.bytes = self.bytes.max(bytes);
        }
        grown
    }
}

impl Share {
    fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.give_back(excess);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// A body that grows, within the limit and with room for what it holds in the budget.
pub(super) struct Collected {
    bytes: Vec<u8>,
    share: Share,
    /// What was declared, or may come at most.
    most: usize,
}

impl Collected {
    pub(super) fn new(share: Share, most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            share,
            most,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds to it.
    ///
    /// # Errors
    /// 413 over [`MAX_BODY_BYTES`], 503 with no budget left.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let length = self.bytes.len() + bytes.len();
        if length > MAX_BODY_BYTES {
            return Err(too_large());
        }
        if length > self.bytes.capacity() {
            // Twice as much each time, but never more than can come.
            let capacity = length.max((2 * self.bytes.capacity()).min(self.most));
            if !self.share.grow_to(capacity) {
                return Err(busy());
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The whole, which holds no more than it is long.
    pub(super) fn finish(mut self) -> (Bytes, Share) {
        self.bytes.shrink_to_fit();
        self.share.shrink_to(self.bytes.len());
        (Bytes::from(self.bytes), self.share)
    }
}

/// A body that gives its share back when the last reference to its bytes is gone.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut codings = headers.get_all(CONTENT_ENCODING).into_iter();
        let Some(coding) = codings.next() else {
            return Ok(Self::Identity);
        };
        let is = |name: &str| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        match codings.next() {
            None if is("identity") => Ok(Self::Identity),
            None if is("gzip") || is("x-gzip") => Ok(Self::Gzip),
            _ => Err(Refusal::invalid(
                "encoded_body",
                "content-encoding: only gzip is supported, else send the body uncompressed",
            )),
        }
    }
}

/// Reads a whole body, decoded.
///
/// # Errors
/// 413 over [`MAX_BODY_BYTES`], encoded or decoded, 503 with no budget left, 408 when nothing arrives, 400 when it breaks off or
/// is encoded otherwise than in gzip.
pub async fn read<B>(headers: &HeaderMap, body: B, budget: &ByteBudget) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let coding = Coding::of(headers)?;
    let declared = content_length(headers);
    if declared.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let until = Instant::now() + TOTAL;
    let (bytes, share) = if coding == Coding::Gzip {
        gzip::read(body, budget, until).await?
    } else {
        plain(body, declared, budget, until).await?
    };
    Ok(Bytes::from_owner(Held {
        bytes,
        _share: share,
    }))
}

async fn plain<B>(
    mut body: B,
    declared: Option<usize>,
    budget: &ByteBudget,
    until: Instant,
) -> Result<(Bytes, Share), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let upfront = declared.unwrap_or_default().min(MAX_UPFRONT);
    let mut share = budget.take(upfront).ok_or_else(busy)?;
    let Some(first) = next(&mut body, until).await? else {
        share.shrink_to(0);
        return Ok((Bytes::new(), share));
    };
    if body.is_end_stream() || Some(first.len()) == declared {
        if first.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        if !share.grow_to(first.len()) {
            return Err(busy());
        }
        return Ok((first, share));
    }
    let mut collected = Collected::new(share, declared.unwrap_or(MAX_BODY_BYTES));
    collected.bytes.reserve_exact(upfront);
    collected.push(&first)?;
    drop(first);
    while let Some(chunk) = next(&mut body, until).await? {
        collected.push(&chunk)?;
    }
    Ok(collected.finish())
}

pub(super) async fn next<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    until: Instant,
) -> Result<Option<Bytes>, Refusal> {
    loop {
        return match timeout_at(until.min(Instant::now() + IDLE), body.frame()).await {
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                ErrorType::Timeout,
                "body_timeout",
                "The request body did not arrive in time",
            )),
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) => Err(Refusal::invalid(
                "body_broken",
                "The request body broke off",
            )),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                Err(_trailers) => continue,
            },
        };
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

pub(super) fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        ErrorType::RequestTooLarge,
        "body_too_large",
        "Request exceeds the maximum size of 32 MB",
    )
}

pub(super) fn busy() -> Refusal {
    Refusal::unavailable(
        "body_budget",
        "Too many large requests at once; try again shortly",
        1,
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http::HeaderValue;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    pub(crate) fn budget(bytes: usize) -> ByteBudget {
        ByteBudget::new(bytes, IntGauge::new("held", "held").unwrap())
    }

    /// What bodies hold of a budget.
    pub(crate) fn held(budget: &ByteBudget) -> usize {
        usize::try_from(budget.0.held.get()).unwrap()
    }

    pub(crate) fn encoded(coding: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static(coding))])
    }

    pub(crate) fn chunks(parts: Vec<Bytes>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::iter(
            parts.into_iter().map(|part| Ok(Frame::data(part))),
        ))
    }

    fn declared(length: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied_and_its_share_comes_back() {
        let budget = budget(100);
        let sent = Bytes::from_static(b"{\"model\":1}");
        let got = read(&declared(sent.len()), Full::new(sent.clone()), &budget)
            .await
            .unwrap();
        assert_eq!(got, sent);
        assert_eq!(got.as_ptr(), sent.as_ptr());
        assert_eq!(budget.0.left.load(Ordering::Relaxed), 100 - sent.len());
        let clone = got.clone();
        drop(got);
        assert_eq!(budget.0.held.get(), 11);
        drop(clone);
        assert_eq!(
            (budget.0.left.load(Ordering::Relaxed), budget.0.held.get()),
            (100, 0)
        );
    }

    #[tokio::test]
    async fn chunks_are_joined_with_and_without_a_declared_length() {
        for headers in [HeaderMap::new(), declared(6)] {
            let body = chunks(vec![
                Bytes::from_static(b"ab"),
                Bytes::from_static(b"cd"),
                Bytes::from_static(b"ef"),
            ]);
            assert_eq!(read(&headers, body, &budget(100)).await.unwrap(), "abcdef");
        }
    }

    #[tokio::test]
    async fn the_budget_has_room_for_all_that_a_body_holds_while_it_grows() {
        let all = budget(MAX_BODY_BYTES);
        let mut collected = Collected::new(all.take(0).unwrap(), MAX_BODY_BYTES);
        for _ in 0..100 {
            collected.push(&[b'x'; 1000]).unwrap();
            assert_eq!(held(&all), collected.bytes.capacity());
        }
        let (bytes, _share) = collected.finish();
        assert_eq!((bytes.len(), held(&all)), (100_000, 100_000));
        let mut declared = Collected::new(all.take(0).unwrap(), 1500);
        declared.push(&[b'x'; 1000]).unwrap();
        declared.push(b"x").unwrap();
        assert_eq!(declared.bytes.capacity(), 1500);
    }

    #[tokio::test]
    async fn too_much_is_413_and_a_used_up_budget_503() {
        let budget = budget(8);
        let refusal = read(
            &declared(MAX_BODY_BYTES + 1),
            Full::new(Bytes::new()),
            &budget,
        )
        .await
        .unwrap_err();
        assert_eq!(refusal.status, 413);
        let refusal = read(
            &declared(9),
            Full::new(Bytes::from_static(b"123456789")),
            &budget,
        )
        .await
        .unwrap_err();
        assert_eq!(
            (refusal.status.as_u16(), refusal.retry_after),
            (503, Some(1))
        );
        let body = chunks(vec![
            Bytes::from_static(b"12345"),
            Bytes::from_static(b"6789"),
        ]);
        assert_eq!(
            read(&HeaderMap::new(), body, &budget)
                .await
                .unwrap_err()
                .status,
            503
        );
        assert_eq!(budget.0.left.load(Ordering::Relaxed), 8);
        let piece = Bytes::from(vec![b'x'; MAX_BODY_BYTES / 2 + 1]);
        let body = chunks(vec![piece.clone(), piece]);
        assert_eq!(
            read(
                &HeaderMap::new(),
                body,
                &ByteBudget::new(usize::MAX, budget.0.held.clone())
            )
            .await
            .unwrap_err()
            .status,
            413
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_given_up() {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(
            read(&declared(5), body, &budget(100))
                .await
                .unwrap_err()
                .status,
            408
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickling_sender_is_given_up_too() {
        let trickle = StreamBody::new(stream::unfold((), |()| async {
            tokio::time::sleep(IDLE / 2).await;
            Some((
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x"))),
                (),
            ))
        }));
        let began = Instant::now();
        let refused = read(&declared(500), Box::pin(trickle), &budget(1000))
            .await
            .unwrap_err();
        assert_eq!((refused.status.as_u16(), began.elapsed()), (408, TOTAL));
    }

    #[tokio::test]
    async fn a_declared_length_takes_nothing_from_others_before_it_arrives() {
        let budget = budget(1024 * 1024);
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let headers = declared(MAX_BODY_BYTES);
        let mut waiting = std::pin::pin!(read(&headers, silent, &budget));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert!(budget.0.left.load(Ordering::Relaxed) >= 1024 * 1024 - MAX_UPFRONT);
        let headers = declared(3);
        let whole = read(&headers, Full::new(Bytes::from_static(b"abc")), &budget);
        assert_eq!(whole.await.unwrap(), "abc");
    }

    #[tokio::test]
    async fn other_codings_are_refused_by_name() {
        for coding in ["br", "deflate", "gzip, gzip", ""] {
            let body = Full::new(Bytes::from_static(b"x"));
            let refusal = read(&encoded(coding), body, &budget(100))
                .await
                .unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.contains("content-encoding"));
        }
        let body = Full::new(Bytes::from_static(b"x"));
        assert_eq!(
            read(&encoded("identity"), body, &budget(100))
                .await
                .unwrap(),
            "x"
        );
    }
}
