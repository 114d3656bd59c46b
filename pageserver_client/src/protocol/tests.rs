#![allow(clippy::unwrap_used)]

use postgres_formats::ForkNumber;
use proptest::prelude::*;

use super::*;

fn rel() -> impl Strategy<Value = RelTag> {
    (any::<u32>(), any::<u32>(), any::<u32>(), 0..4u8).prop_map(|(spc, db, rel, fork)| RelTag {
        spc: Oid(spc),
        db: Oid(db),
        rel: Oid(rel),
        fork: ForkNumber::from_u8(fork).unwrap(),
    })
}

fn request() -> impl Strategy<Value = Request> {
    let kind = prop_oneof![
        (rel(), 0..=BlockNumber::MAX.0 - 255, 1..=MAX_PAGES_PER_REQUEST).prop_map(
            |(rel, first, count)| RequestKind::GetPages { rel, first: BlockNumber(first), count }
        ),
        rel().prop_map(|rel| RequestKind::RelSize { rel }),
        rel().prop_map(|rel| RequestKind::RelExists { rel }),
        any::<u32>().prop_map(|db| RequestKind::DbSize { db: Oid(db) }),
        (any::<u8>(), any::<u32>())
            .prop_map(|(kind, segment)| RequestKind::SlruSegment { kind, segment }),
        (any::<u8>(), 0..=BlockNumber::MAX.0 - 255, 1..=MAX_PAGES_PER_REQUEST)
            .prop_map(|(kind, first, count)| RequestKind::GetSlruPages { kind, first, count }),
        (1..=WINDOW_PAGES_MAX).prop_map(|pages| RequestKind::OpenWindow { pages }),
        (rel(), 0..=BlockNumber::MAX.0 - 255, 1..=MAX_PAGES_PER_REQUEST, any::<u16>()).prop_map(
            |(rel, first, count, place)| {
                RequestKind::PutPages { rel, first: BlockNumber(first), count, place }
            }
        ),
    ];
    (any::<u64>(), any::<u64>(), kind).prop_map(|(id, lsn, kind)| Request {
        id,
        lsn: Lsn::new(lsn),
        kind,
    })
}

fn response() -> impl Strategy<Value = Response> {
    let body = prop_oneof![
        (1..4usize, any::<u8>())
            .prop_map(|(n, fill)| ResponseBody::Pages(vec![fill; n * BLCKSZ].into())),
        any::<Option<u32>>().prop_map(ResponseBody::RelSize),
        any::<bool>().prop_map(ResponseBody::RelExists),
        any::<u64>().prop_map(ResponseBody::DbSize),
        prop::collection::vec(any::<u8>(), 0..100)
            .prop_map(|bytes| ResponseBody::SlruSegment(bytes.into())),
        any::<u16>().prop_map(|pages| ResponseBody::Window { pages }),
        any::<u16>().prop_map(|count| ResponseBody::PagesPut { count }),
        (0..ErrorCode::ALL.len(), ".{0,40}")
            .prop_map(|(n, message)| ResponseBody::Error { code: ErrorCode::ALL[n], message }),
    ];
    (any::<u64>(), body).prop_map(|(id, body)| Response { id, body })
}

fn encoded_request(request: &Request) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out);
    out
}

fn encoded_response(response: &Response) -> Bytes {
    let mut out = Vec::new();
    response.encode(&mut out);
    out.into()
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        let bytes = encoded_request(&request);
        prop_assert_eq!(Request::decode(&bytes), Ok(request));
        for length in 0..bytes.len() {
            prop_assert!(Request::decode(&bytes[..length]).is_err());
        }
        let longer = [bytes, vec![0]].concat();
        prop_assert_eq!(Request::decode(&longer), Err(DecodeError::TrailingBytes { extra: 1 }));
    }

    #[test]
    fn responses_round_trip(response in response()) {
        let bytes = encoded_response(&response);
        prop_assert_eq!(Response::decode(&bytes), Ok(response));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(tag in any::<u8>(), rest in prop::collection::vec(any::<u8>(), 0..60)) {
        let bytes = [vec![tag], rest].concat();
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(encoded_request(&request), bytes.clone());
        }
        let bytes = Bytes::from(bytes);
        let _ = Response::decode(&bytes);
    }

    #[test]
    fn damaged_requests_are_a_message_or_an_error(request in request(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encoded_request(&request);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(encoded_request(&request), bytes);
        }
    }
}

#[test]
fn the_bytes_of_a_request_are_fixed() {
    let request = Request {
        id: 0x0102,
        lsn: Lsn::new(0x16B3748),
        kind: RequestKind::GetPages {
            rel: RelTag { spc: Oid(1663), db: Oid(5), rel: Oid(16384), fork: ForkNumber::Vm },
            first: BlockNumber(7),
            count: 8,
        },
    };
    let expected: [u8; 36] = [
        1, 2, 1, 0, 0, 0, 0, 0, 0, 0x48, 0x37, 0x6B, 0x01, 0, 0, 0, 0, 0x7F, 0x06, 0, 0, 5, 0, 0,
        0, 0, 0x40, 0, 0, 2, 7, 0, 0, 0, 8, 0,
    ];
    assert_eq!(encoded_request(&request), expected);
}

#[test]
fn a_split_header_and_pages_are_the_same_message() {
    let pages = Bytes::from(vec![3; 2 * BLCKSZ]);
    let response = Response { id: 77, body: ResponseBody::Pages(pages.clone()) };
    let split = [&Response::pages_header(77)[..], &pages].concat();
    assert_eq!(encoded_response(&response), split);
}

#[test]
fn impossible_numbers_are_refused() {
    let get = |first, count| {
        let rel = RelTag { spc: Oid(1), db: Oid(2), rel: Oid(3), fork: ForkNumber::Main };
        let kind = RequestKind::GetPages { rel, first: BlockNumber(first), count };
        Request::decode(&encoded_request(&Request { id: 1, lsn: Lsn::new(8), kind }))
    };
    assert!(get(0, MAX_PAGES_PER_REQUEST).is_ok());
    assert!(get(BlockNumber::MAX.0, 1).is_ok());
    assert!(get(0, 0).is_err());
    assert!(get(0, MAX_PAGES_PER_REQUEST + 1).is_err());
    assert!(get(BlockNumber::MAX.0, 2).is_err());

    let pages = |length| {
        let body = ResponseBody::Pages(vec![0; length].into());
        Response::decode(&encoded_response(&Response { id: 1, body }))
    };
    assert!(pages(BLCKSZ).is_ok());
    for length in [0, 1, BLCKSZ - 1, BLCKSZ + 1, (usize::from(MAX_PAGES_PER_REQUEST) + 1) * BLCKSZ]
    {
        assert!(pages(length).is_err(), "{length} bytes were accepted");
    }
}

#[test]
fn long_error_texts_are_cut_between_characters() {
    let text = format!("x{}", "ä".repeat(MAX_ERROR_MESSAGE_BYTES));
    let bytes = encoded_response(&Response::error(1, ErrorCode::Internal, text.clone()));
    let Response { body: ResponseBody::Error { message, .. }, .. } =
        Response::decode(&bytes).unwrap()
    else {
        panic!("not an error response");
    };
    assert!(text.starts_with(&message) && message.len() == MAX_ERROR_MESSAGE_BYTES - 1);
}
