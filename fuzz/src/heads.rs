//! Heads of requests.

use spillway_proxy::http::connection::scan::{HeadScan, says_length_twice};

use super::input::in_pieces;

/// A head ends where the parser that reads it says, however it arrives and whatever comes behind it, and says its length twice
/// when that parser finds both headers.
pub fn wire_head(data: &[u8]) {
    let (whole, pieces) = in_pieces(data);
    let end = HeadScan::default().end(&whole);
    let (mut scan, mut arrived) = (HeadScan::default(), Vec::new());
    let in_pieces = pieces.iter().find_map(|piece| {
        arrived.extend_from_slice(piece);
        scan.end(&arrived)
    });
    assert_eq!(in_pieces, end);
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&whole) {
        Ok(httparse::Status::Complete(length)) => {
            assert_eq!(end, Some(length));
            let has = |name: &str| {
                let mut headers = request.headers.iter();
                headers.any(|header| header.name.eq_ignore_ascii_case(name))
            };
            assert_eq!(
                says_length_twice(&whole[..length]),
                has("content-length") && has("transfer-encoding")
            );
        }
        Ok(httparse::Status::Partial) => assert_eq!(end, None),
        // It is refused.
        Err(_) => {}
    }
}
