use serde_json::Value;

use super::*;
use crate::import::PROBLEM_LIMIT;

const HEAD: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

fn of(rows: &str) -> Result<Conversion, ImportError> {
    convert(format!("{HEAD}{rows}").as_bytes(), |_| {})
}

fn excerpt() -> Conversion {
    let excerpt = include_bytes!("../../../examples/online-retail/online-retail-excerpt.csv.gz");
    convert(flate2::read::MultiGzDecoder::new(excerpt.as_slice()), |_| {}).unwrap()
}

fn events(conversion: &Conversion) -> Vec<Value> {
    conversion
        .events
        .iter()
        .map(|event| serde_json::from_str(&event.json).unwrap())
        .collect()
}

fn problem_of(row: &str) -> String {
    match of(row) {
        Err(ImportError::Rows { problems, total: 1 }) => problems[0].reason.clone(),
        other => panic!("expected one bad row, got {other:?}"),
    }
}

/// The classes must add up to the file, whatever was in it.
fn assert_adds_up(summary: &Summary) {
    let classes =
        summary.order_lines + summary.refund_lines + summary.adjustments_bad_debt + summary.adjustments_stock;
    assert_eq!(classes, summary.rows);
}

#[test]
fn rows_of_one_invoice_become_one_order_with_its_lines_in_file_order() {
    let conversion = of("\
536365,85123A,WHITE HANGING HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom\n\
536365,71053,WHITE METAL LANTERN,6,2010-12-01 08:26:00,3.39,17850,United Kingdom\n")
    .unwrap();
    assert_eq!(
        conversion.events[0].json,
        concat!(
            r#"{"event_id":"online-retail-536365","event":"Order Completed","user_id":"17850","#,
            r#""timestamp":"2010-12-01T08:26:00Z","properties":{"order_id":"536365","currency":"GBP","total":35.64,"#,
            r#""products":[{"sku":"85123A","name":"WHITE HANGING HEART","quantity":6,"price":2.55},"#,
            r#"{"sku":"71053","name":"WHITE METAL LANTERN","quantity":6,"price":3.39}]},"#,
            r#""context":{"country":"United Kingdom"}}"#
        )
    );
    let expected = Summary {
        rows: 2,
        order_lines: 2,
        orders: 1,
        customers: 1,
        revenue_pence: 3564,
        ..Summary::default()
    };
    assert_eq!(conversion.summary, expected);
}

#[test]
fn scattered_rows_belong_to_one_invoice_and_its_earliest_time_counts() {
    let conversion = of("\
2,20001,A,1,2011-01-01 10:00:00,1.00,7,UK\n\
1,20001,A,1,2011-01-01 09:01:00,1.00,7,UK\n\
2,20002,B,1,2011-01-01 09:59:00,1.00,7,UK\n")
    .unwrap();
    let events = events(&conversion);
    assert_eq!(events.len(), 2);
    assert_eq!(
        events[0]["event_id"], "online-retail-1",
        "events are in order of time"
    );
    assert_eq!(events[1]["timestamp"], "2011-01-01T09:59:00Z");
    assert_eq!(events[1]["properties"]["products"][1]["sku"], "20002");
}

#[test]
fn a_shuffled_file_makes_the_same_events_but_for_the_order_of_lines() {
    let rows = [
        "1,20001,A,1,2011-01-01 10:00:00,1.10,7,UK\n",
        "1,20002,B,2,2011-01-01 10:00:00,2.20,7,UK\n",
        "C3,20001,A,-1,2011-01-03 10:00:00,1.10,7,UK\n",
        "2,20003,C,3,2011-01-01 10:01:00,3.30,,UK\n",
    ];
    let straight = of(&rows.concat()).unwrap();
    let backwards = of(&rows.iter().rev().copied().collect::<String>()).unwrap();
    assert_eq!(straight.summary, backwards.summary);
    let ids = |conversion: &Conversion| -> Vec<String> {
        conversion
            .events
            .iter()
            .map(|event| event.event_id.clone())
            .collect()
    };
    assert_eq!(ids(&straight), ids(&backwards));
    let total = |conversion: &Conversion| events(conversion)[0]["properties"]["total"].clone();
    assert_eq!(total(&straight), total(&backwards));
}

#[test]
fn an_invoice_with_c_is_a_refund_of_positive_quantities() {
    let conversion = of("C536379,D,Discount,-1,2010-12-01 09:41:00,27.50,14527,United Kingdom\n").unwrap();
    let event = &events(&conversion)[0];
    assert_eq!(event["event"], "Order Refunded");
    assert_eq!(event["properties"]["refund_id"], "C536379");
    assert_eq!(
        event["properties"].get("order_id"),
        None,
        "the file does not name the order"
    );
    assert_eq!(event["properties"]["total"].to_string(), "27.5");
    assert_eq!(event["properties"]["products"][0]["quantity"], 1);
    assert_eq!(conversion.summary.refunded_pence, 2750);
    assert_eq!((conversion.summary.orders, conversion.summary.refunds), (0, 1));
}

#[test]
fn bad_debt_and_stock_adjustments_are_counted_and_not_sent() {
    let conversion = of("\
A563185,B,Adjust bad debt,1,2011-08-12 14:50:00,11062.06,,United Kingdom\n\
A563186,B,Adjust bad debt,1,2011-08-12 14:51:00,-11062.06,,United Kingdom\n\
536589,21777,,-10,2010-12-01 16:50:00,0.0,,United Kingdom\n\
536590,21777,,0,2010-12-01 16:50:00,0.0,,United Kingdom\n")
    .unwrap();
    assert!(conversion.events.is_empty());
    assert_eq!(
        (
            conversion.summary.adjustments_bad_debt,
            conversion.summary.adjustments_stock
        ),
        (2, 2)
    );
    assert_eq!(
        (conversion.summary.guests, conversion.summary.revenue_pence),
        (0, 0)
    );
    assert_adds_up(&conversion.summary);
}

#[test]
fn an_invoice_of_both_signs_is_an_order_of_its_positive_rows() {
    let conversion = of("\
1,20001,A,-5,2011-01-01 09:00:00,1.00,7,UK\n\
1,20002,B,2,2011-01-01 10:00:00,1.00,7,UK\n")
    .unwrap();
    let event = &events(&conversion)[0];
    assert_eq!(event["properties"]["products"].as_array().unwrap().len(), 1);
    assert_eq!(event["timestamp"], "2011-01-01T10:00:00Z");
    assert_eq!(
        (
            conversion.summary.order_lines,
            conversion.summary.adjustments_stock
        ),
        (1, 1)
    );
    assert_adds_up(&conversion.summary);
}

#[test]
fn a_row_without_customer_belongs_to_the_guest_of_its_invoice() {
    let conversion = of("\
1,20001,A,1,2011-01-01 10:00:00,1.00,,UK\n\
1,20002,B,1,2011-01-01 10:00:00,1.00,,UK\n\
2,20001,A,1,2011-01-01 10:00:00,1.00,,UK\n")
    .unwrap();
    let events = events(&conversion);
    assert_eq!(events[0]["anonymous_id"], "guest-1");
    assert_eq!(events[1]["anonymous_id"], "guest-2");
    assert_eq!((conversion.summary.guests, conversion.summary.customers), (2, 0));
}

#[test]
fn a_blank_customer_adds_nothing_and_a_second_one_is_an_error() {
    let conversion = of("\
1,20001,A,1,2011-01-01 10:00:00,1.00,,UK\n\
1,20002,B,1,2011-01-01 10:00:00,1.00,17850,UK\n")
    .unwrap();
    assert_eq!(events(&conversion)[0]["user_id"], "17850");
    assert_eq!((conversion.summary.guests, conversion.summary.customers), (0, 1));

    let reason = problem_of(
        "\
1,20001,A,1,2011-01-01 10:00:00,1.00,17850,UK\n\
1,20002,B,1,2011-01-01 10:00:00,1.00,17851,UK\n",
    );
    assert_eq!(reason, "invoice 1 belongs to customer 17850 and to 17851");
}

#[test]
fn charges_are_flagged_and_in_the_total() {
    let conversion = of("\
1,20001,A,1,2011-01-01 10:00:00,1.00,7,UK\n\
1,POST,POSTAGE,2,2011-01-01 10:00:00,18.00,7,UK\n")
    .unwrap();
    let event = &events(&conversion)[0];
    assert_eq!(event["properties"]["products"][0].get("is_charge"), None);
    assert_eq!(event["properties"]["products"][1]["is_charge"], true);
    assert_eq!(event["properties"]["total"].to_string(), "37.0");
    let summary = &conversion.summary;
    assert_eq!(
        (summary.charge_lines, summary.charges_pence, summary.revenue_pence),
        (1, 3600, 3700)
    );
}

#[test]
fn codes_of_the_shop_are_sorted_into_products_and_charges() {
    for code in [
        "85123A",
        "15056bl",
        "22423",
        "DCGS0003",
        "DCGSSBOY",
        "gift_0001_20",
        "PADS",
    ] {
        assert!(is_product(code), "{code}");
    }
    for code in [
        "POST",
        "DOT",
        "M",
        "m",
        "D",
        "S",
        "C2",
        "B",
        "BANK CHARGES",
        "AMAZONFEE",
        "CRUK",
        "1234",
    ] {
        assert!(!is_product(code), "{code}");
    }
}

#[test]
fn exact_duplicates_are_lines_like_any_other() {
    let row = "1,20001,A,1,2011-01-01 10:00:00,1.25,7,UK\n";
    let conversion = of(&row.repeat(2)).unwrap();
    assert_eq!(conversion.summary.revenue_pence, 250);
    assert_eq!(
        events(&conversion)[0]["properties"]["products"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn lines_are_rounded_half_to_even_each() {
    // 0.5p to 0p, 1.5p to 2p, and 0.1p to nothing; the sum of the unrounded would be 2.1p.
    let conversion = of("\
1,20001,A,1,2011-01-01 10:00:00,0.005,7,UK\n\
1,20001,A,1,2011-01-01 10:00:00,0.015,7,UK\n\
1,PADS,PADS,1,2011-01-01 10:00:00,0.001,7,UK\n")
    .unwrap();
    assert_eq!(conversion.summary.revenue_pence, 2);
    let json = &conversion.events[0].json;
    assert!(
        json.contains(r#""price":0.001"#),
        "the price keeps its digits: {json}"
    );
}

#[test]
fn an_order_worth_nothing_is_an_order() {
    let conversion = of("1,20001,,3,2011-01-01 10:00:00,0.0,,UK\n").unwrap();
    assert_eq!(
        (conversion.summary.orders, conversion.summary.revenue_pence),
        (1, 0)
    );
    assert_eq!(
        events(&conversion)[0]["properties"]["products"][0].get("name"),
        None,
        "no name is no name"
    );
}

#[test]
fn text_is_escaped_wherever_it_goes() {
    let conversion = of("1,20001,\"12\"\" \\ £, TRAY\",1,2011-01-01 10:00:00,1.00,,\"U\"\"K\"\n").unwrap();
    let event = &events(&conversion)[0];
    assert_eq!(event["properties"]["products"][0]["name"], "12\" \\ £, TRAY");
    assert_eq!(event["context"]["country"], "U\"K");
}

#[test]
fn bad_rows_are_named_and_nothing_is_returned() {
    let good = "1,20001,A,1,2011-01-01 10:00:00,1.00,7,UK\n";
    let error = of(&format!(
        "{good}{good}1,20001,A,x,2011-01-01 10:00:00,1.00,7,UK\n"
    ))
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 bad row, so nothing was sent:\n  line 4: Quantity `x` is not a whole number up to a million"
    );
    for (row, reason) in [
        (
            "X1,20001,A,1,2011-01-01 10:00:00,1.00,7,UK",
            "InvoiceNo `X1` is not",
        ),
        ("1,,A,1,2011-01-01 10:00:00,1.00,7,UK", "StockCode `` is not"),
        (
            "1,20001,A,1.5,2011-01-01 10:00:00,1.00,7,UK",
            "Quantity `1.5` is not",
        ),
        (
            "1,20001,A,1,2011-02-29 10:00:00,1.00,7,UK",
            "InvoiceDate `2011-02-29 10:00:00` is not",
        ),
        (
            "1,20001,A,1,12/1/2010 8:26,1.00,7,UK",
            "InvoiceDate `12/1/2010 8:26` is not",
        ),
        (
            "1,20001,A,1,2011-01-01 10:00:00,1e3,7,UK",
            "UnitPrice `1e3` is not",
        ),
        (
            "1,20001,A,1,2011-01-01 10:00:00,-1.00,7,UK",
            "UnitPrice `-1.00` is not positive",
        ),
        (
            "C1,20001,A,1,2011-01-01 10:00:00,1.00,7,UK",
            "a refund's Quantity × UnitPrice `1 × 1.00` is not",
        ),
        (
            "1,20001,A,1,2011-01-01 10:00:00,1.00,17850.0,UK",
            "CustomerID `17850.0` is not",
        ),
        ("1,20001,A,1,2011-01-01 10:00:00,1.00,7", "7 columns, expected 8"),
    ] {
        let found = problem_of(&format!("{row}\n"));
        assert!(found.starts_with(reason), "{found}");
    }
}

#[test]
fn many_bad_rows_are_counted_and_some_are_listed() {
    let Err(ImportError::Rows { problems, total }) = of(&"1,2\n".repeat(50)) else {
        panic!("expected bad rows")
    };
    assert_eq!((problems.len(), total), (PROBLEM_LIMIT, 50));
    assert_eq!(problems[0].line, 2);
}

#[test]
fn another_header_is_refused_and_a_byte_order_mark_is_not() {
    let error = convert("a,b\n1,2\n".as_bytes(), |_| {}).unwrap_err();
    assert!(matches!(error, ImportError::Header { .. }), "{error}");
    assert!(convert("".as_bytes(), |_| {}).is_err());
    assert!(convert(format!("\u{feff}{HEAD}").as_bytes(), |_| {}).is_ok());
}

#[test]
fn bytes_that_are_no_utf8_are_refused_with_their_line() {
    let mut bytes = HEAD.as_bytes().to_vec();
    bytes.extend_from_slice(b"1,20001,\xa3 TRAY,1,2011-01-01 10:00:00,1.00,7,UK\n");
    let error = convert(bytes.as_slice(), |_| {}).unwrap_err();
    assert!(matches!(error, ImportError::Read { line: 2, .. }), "{error}");
}

#[test]
fn the_excerpt_holds_what_an_independent_count_found() {
    let conversion = excerpt();
    // From scripts/totals.py.
    let expected = Summary {
        rows: 41_534,
        order_lines: 40_623,
        refund_lines: 787,
        adjustments_bad_debt: 3,
        adjustments_stock: 121,
        orders: 1_711,
        refunds: 329,
        charge_lines: 179,
        customers: 1_092,
        guests: 189,
        revenue_pence: 92_539_917,
        charges_pence: 3_289_312,
        refunded_pence: 5_180_618,
    };
    assert_eq!(conversion.summary, expected);
    assert_eq!(conversion.events.len() as u64, expected.orders + expected.refunds);
    assert_adds_up(&conversion.summary);
    for event in &conversion.events {
        assert!(
            serde_json::from_str::<Value>(&event.json).is_ok(),
            "{}",
            event.event_id
        );
    }
}

/// What the converter makes is what the service takes: no event of the excerpt is set aside or refused, and the
/// amounts that the service reads out of the events are the ones the converter counted.
#[test]
fn every_event_of_the_excerpt_is_accepted() {
    use crate::domain::event::{Body, EventLimits, IngestContext, Outcome, Source};
    use crate::domain::ids::{Environment, PseudonymKey, Shop, Timestamp};

    let conversion = excerpt();
    let shop = Shop::new("demo", Environment::Live).unwrap();
    let key = PseudonymKey::new("k1", b"secret");
    let limits = EventLimits::default();
    let ctx = IngestContext {
        shop: &shop,
        source: Source::Import,
        key: &key,
        user_token_key: None,
        received_at: Timestamp(1_800_000_000_000),
        limits: &limits,
    };
    for event in &conversion.events {
        let body = Body::parse(event.json.as_bytes(), 1).unwrap();
        let outcomes = body.validate(&ctx, &mut || unreachable!("the event has an id"));
        let [Outcome::Accepted(accepted)] = outcomes.as_slice() else {
            panic!("{}: {outcomes:?}", event.json)
        };
        assert_eq!(*accepted.event_id, event.event_id);
        assert!(event.json.contains(&iso(accepted.event_time)), "{}", event.json);
    }

    /// `YYYY-MM-DDTHH:MM` of a day in 2011.
    fn iso(time: Timestamp) -> String {
        let day = time.day() - 14_975;
        let month_starts = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let month = month_starts.iter().rposition(|start| *start <= day).unwrap();
        let minute = time.0.rem_euclid(86_400_000) / 60_000;
        let day = day - month_starts[month] + 1;
        format!(
            "2011-{:02}-{day:02}T{:02}:{:02}",
            month + 1,
            minute / 60,
            minute % 60
        )
    }
}
