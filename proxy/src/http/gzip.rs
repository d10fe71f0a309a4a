//! Request bodies in gzip: decoded as they arrive, within the limits of bodies that are not.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http_body::Body;
use tokio::time::Instant;

use crate::http::body::{ByteBudget, Collected, MAX_BODY_BYTES, Share, busy, next, too_large};
use crate::http::error::Refusal;

/// Decoded at a time: a thousandfold of it may come out.
const SLICE: usize = 4 * 1024;
/// After how much came out others get a turn.
const TURN: usize = 1024 * 1024;

/// Reads a whole body and decodes it.
pub(super) async fn read<B>(
    mut body: B,
    budget: &ByteBudget,
    until: Instant,
) -> Result<(Bytes, Share), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let share = budget.take(0).ok_or_else(busy)?;
    let mut decoder = MultiGzDecoder::new(Decoded {
        body: Collected::new(share, MAX_BODY_BYTES),
        refusal: None,
    });
    let (mut received, mut out_at_turn) = (0, 0);
    while let Some(chunk) = next(&mut body, until).await? {
        received += chunk.len();
        if received > MAX_BODY_BYTES {
            return Err(too_large());
        }
        for slice in chunk.chunks(SLICE) {
            if decoder.write_all(slice).is_err() {
                return Err(decoder.get_mut().refusal());
            }
            let out = decoder.get_ref().body.len();
            if out - out_at_turn > TURN {
                out_at_turn = out;
                tokio::task::yield_now().await;
            }
        }
    }
    if decoder.try_finish().is_err() {
        return Err(decoder.get_mut().refusal());
    }
    let whole = decoder.finish().map_err(|_| not_gzip())?;
    Ok(whole.body.finish())
}

/// What comes out of the decoder, within the limit and the budget.
struct Decoded {
    body: Collected,
    refusal: Option<Refusal>,
}

impl Decoded {
    /// Why decoding stopped.
    fn refusal(&mut self) -> Refusal {
        self.refusal.take().unwrap_or_else(not_gzip)
    }
}

fn not_gzip() -> Refusal {
    Refusal::invalid(
        "encoded_body",
        "The request body is not valid gzip: send what content-encoding says, or leave the header out",
    )
}

impl Write for Decoded {
    fn write(&mut self, decoded: &[u8]) -> io::Result<usize> {
        match self.body.push(decoded) {
            Ok(()) => Ok(decoded.len()),
            Err(refusal) => {
                self.refusal.get_or_insert(refusal);
                Err(io::Error::from(io::ErrorKind::FileTooLarge))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::http::body::tests::{budget, chunks, encoded, held};
    use crate::http::body::{self};

    pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Vec<Bytes> {
        bytes.chunks(size).map(Bytes::copy_from_slice).collect()
    }

    #[tokio::test]
    async fn a_body_is_decoded_however_it_arrives_and_its_share_comes_back() {
        let plain = b"{\"model\":\"claude\"}".repeat(500);
        let mut two_members = gzip(&plain);
        two_members.extend(gzip(&plain));
        for (sent, expected) in [
            (gzip(&plain), plain.clone()),
            (two_members, plain.repeat(2)),
        ] {
            for size in [1, 7, sent.len()] {
                let budget = budget(1024 * 1024);
                let body = chunks(in_pieces(&sent, size));
                let got = body::read(&encoded("GZip"), body, &budget).await.unwrap();
                assert_eq!(got, expected);
                assert_eq!(held(&budget), expected.len());
                drop(got);
                assert_eq!(held(&budget), 0);
            }
        }
    }

    #[tokio::test]
    async fn a_bomb_ends_at_the_limit_and_within_the_budget() {
        let bomb = gzip(&vec![b' '; MAX_BODY_BYTES + 1]);
        assert!(bomb.len() < 64 * 1024);
        let large = budget(usize::MAX / 2);
        let refused = body::read(&encoded("gzip"), chunks(vec![bomb.clone().into()]), &large).await;
        assert_eq!(refused.unwrap_err().status, 413);
        let small = budget(1024 * 1024);
        let refused = body::read(&encoded("gzip"), chunks(vec![bomb.into()]), &small).await;
        assert_eq!(refused.unwrap_err().status, 503);
        assert_eq!((held(&large), held(&small)), (0, 0));
    }

    #[tokio::test]
    async fn what_is_no_gzip_or_breaks_off_is_refused() {
        let mut damaged = gzip(b"hello");
        let last = damaged.len() - 5;
        damaged[last] ^= 1;
        let cut = gzip(&b"hello".repeat(100));
        for sent in [
            b"{\"model\":1}".to_vec(),
            Vec::new(),
            damaged,
            cut[..cut.len() - 3].to_vec(),
        ] {
            let body = chunks(vec![sent.into()]);
            let refused = body::read(&encoded("gzip"), body, &budget(1024)).await;
            let refusal = refused.unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.contains("gzip"), "{}", refusal.message);
        }
    }
}
