//! Messages of a page stream, from either side.
//!
//! What can be decoded is encoded to the same bytes again, so that no two messages mean the same.

use bytes::Bytes;
use pageserver_client::ErrorCode;
use pageserver_client::protocol::{
    MAX_PAGES_PER_REQUEST, Request, RequestKind, Response, ResponseBody,
};
use postgres_formats::{BLCKSZ, BlockNumber, ForkNumber, Lsn, Oid, RelTag};

/// A message.
pub fn run(input: &[u8]) {
    if let Ok(request) = Request::decode(input) {
        let mut again = Vec::new();
        request.encode(&mut again);
        assert_eq!(again, input, "{request:?}");
        if let RequestKind::GetPages { first, count, .. } = request.kind {
            assert!((1..=MAX_PAGES_PER_REQUEST).contains(&count));
            assert!(first.0.checked_add(u32::from(count) - 1).is_some());
        }
    }
    let message = Bytes::copy_from_slice(input);
    if let Ok(response) = Response::decode(&message) {
        let mut again = Vec::new();
        response.encode(&mut again);
        match response.body {
            // Text is made valid and is shortened.
            ResponseBody::Error { .. } => {
                assert!(Response::decode(&Bytes::from(again)).is_ok());
            }
            body => assert_eq!(again, input, "{body:?}"),
        }
    }
}

/// A message of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let rel = RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(1259), fork: ForkNumber::Vm };
    let requests = [
        RequestKind::GetPages { rel, first: BlockNumber(7), count: 3 },
        RequestKind::RelSize { rel },
        RequestKind::RelExists { rel },
        RequestKind::DbSize { db: Oid(5) },
        RequestKind::OpenWindow { pages: 320 },
        RequestKind::PutPages { rel, first: BlockNumber(7), count: 3, place: 64 },
    ]
    .map(|kind| {
        let mut out = Vec::new();
        Request { id: 1, lsn: Lsn::new(0x16B_3748), kind }.encode(&mut out);
        out
    });
    let responses = [
        ResponseBody::Pages(Bytes::from(vec![3; 2 * BLCKSZ])),
        ResponseBody::RelSize(Some(9)),
        ResponseBody::RelSize(None),
        ResponseBody::RelExists(true),
        ResponseBody::DbSize(81_920),
        ResponseBody::Window { pages: 320 },
        ResponseBody::PagesPut { count: 3 },
        ResponseBody::Error { code: ErrorCode::Corrupt, message: "damaged".to_owned() },
    ]
    .map(|body| {
        let mut out = Vec::new();
        Response { id: 1, body }.encode(&mut out);
        out
    });
    requests.into_iter().chain(responses).collect()
}
