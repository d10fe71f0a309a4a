//! Reads answers that do not stream to their end.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};

/// Why an answer could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError<E> {
    /// It broke off.
    #[error(transparent)]
    Broken(E),
    /// It is larger than anybody's.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// A whole answer of at most `limit` bytes, without copying where it came in one piece.
pub(super) async fn collect<E>(
    source: impl Stream<Item = Result<Bytes, E>>,
    limit: usize,
) -> Result<Bytes, CollectError<E>> {
    let mut source = std::pin::pin!(source);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(bytes) = source.next().await {
        let bytes = bytes.map_err(CollectError::Broken)?;
        if first.len() + more.len() + bytes.len() > limit {
            return Err(CollectError::TooLarge(limit));
        }
        if first.is_empty() && more.is_empty() {
            first = bytes;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&std::mem::take(&mut first));
            }
            more.extend_from_slice(&bytes);
        }
    }
    Ok(if more.is_empty() {
        first
    } else {
        more.freeze()
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn collected(pieces: &[&'static str]) -> Result<Bytes, CollectError<Infallible>> {
        let pieces = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        collect(futures::stream::iter(pieces), 6).await
    }

    #[tokio::test]
    async fn pieces_become_one_up_to_the_limit() {
        for (pieces, whole) in [
            (&[][..], ""),
            (&["", "one", ""], "one"),
            (&["one", "", "two"], "onetwo"),
        ] {
            assert_eq!(collected(pieces).await.unwrap(), whole);
        }
        assert!(matches!(
            collected(&["one", "two", "x"]).await,
            Err(CollectError::TooLarge(6))
        ));
    }
}
