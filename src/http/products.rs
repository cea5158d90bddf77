//! `PUT /admin/v1/products`: what the shop's back end says of its products. Each becomes an event (`Product Updated`), so it is
//! durable, replayed and joined with what other events say like any.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{Code, Problem, ProblemBody};
use super::events::{Events, Receipts};
use super::extract::{authenticate, presented_key};
use crate::clock;
use crate::domain::event::Body;
use crate::ingest::{Origin, Receipt};
use crate::keys::KeyKind;
use crate::telemetry::Route;

/// A product; of what is absent the former statement holds.
#[derive(Debug, utoipa::ToSchema)]
#[schema(as = Product)]
#[allow(dead_code, reason = "describes JSON that is read in place")]
pub(super) struct ProductBody {
    /// Or `sku`.
    product_id: String,
    name: Option<String>,
    category: Option<String>,
    /// The unit price as a decimal.
    #[schema(example = "12.75")]
    price: Option<String>,
    /// ISO 4217.
    currency: Option<String>,
    /// Pieces that can be sold; at 0 it is not recommended.
    #[schema(minimum = 0)]
    stock: Option<i64>,
    image_url: Option<String>,
    /// Postage, fees and the like: never recommended.
    is_charge: Option<bool>,
}

/// Keep the catalogue.
///
/// An array of products, or `{"products": […]}`. The 202 means that they are durable; recommendations follow within seconds.
/// Saying the same again changes nothing.
#[utoipa::path(
    put, path = "/admin/v1/products", operation_id = "putProducts", tag = "admin",
    request_body(content((Vec<ProductBody> = "application/json"))),
    responses(
        (status = 202, description = "Durable", body = Receipts),
        (status = "4XX", description = "Refused whole, for good", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Not acknowledged; send it again after `Retry-After` seconds", body = ProblemBody, content_type = "application/problem+json"),
    ),
    security(("key" = []), ("basic" = [])),
)]
pub(super) async fn put(State(events): State<Arc<Events>>, request: Request) -> Response {
    let started = Instant::now();
    let response = match events.take_products(request).await {
        Ok(results) => (StatusCode::ACCEPTED, axum::Json(Receipts { results })).into_response(),
        Err(problem) => problem.into_response(),
    };
    events
        .metrics
        .request(Route::Admin, response.status().as_u16(), started.elapsed());
    response
}

impl Events {
    async fn take_products(&self, request: Request) -> Result<Vec<Receipt>, Problem> {
        let (parts, body) = request.into_parts();
        let key = authenticate(&self.keys, presented_key(&parts)?.as_ref(), None)?;
        if key.kind != KeyKind::Server {
            return Err(Code::ServerKeyRequired.into());
        }
        let held = self.bodies.read(&parts.headers, body).await?;
        let bytes = as_events(&held.bytes)?;
        let body = Body::parse(&bytes, self.ingest.limits().max_events)?;
        let origin = Origin {
            shop: &key.shop,
            source: key.kind.into(),
        };
        Ok(self.ingest.accept(&body, origin, clock::now()).await?)
    }
}

/// The products as a body of `POST /events`.
fn as_events(body: &[u8]) -> Result<Vec<u8>, Problem> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        products: Vec<&'a RawValue>,
    }
    let products: Result<Vec<&RawValue>, _> = match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice::<Named<'_>>(body).map(|named| named.products),
        _ => serde_json::from_slice(body),
    };
    let products = products.map_err(|error| {
        let detail = format!("expected an array of products, or {{\"products\": […]}}: {error}");
        Problem::new(Code::InvalidBody, detail)
    })?;
    let mut events = b"[".to_vec();
    for (index, product) in products.iter().enumerate() {
        if index > 0 {
            events.push(b',');
        }
        events.extend_from_slice(br#"{"event":"Product Updated","properties":"#);
        events.extend_from_slice(product.get().as_bytes());
        events.push(b'}');
    }
    events.push(b']');
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_become_events() {
        let events = |body: &str| as_events(body.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        let expected = r#"[{"event":"Product Updated","properties":{"sku":"a","price":1.10}},{"event":"Product Updated","properties":7}]"#;
        assert_eq!(
            events(r#"[{"sku":"a","price":1.10}, 7]"#).ok().as_deref(),
            Some(expected)
        );
        assert_eq!(
            events(r#"{"products":[{"sku":"a","price":1.10},7]}"#)
                .ok()
                .as_deref(),
            Some(expected)
        );
        assert_eq!(events("[]").ok().as_deref(), Some("[]"));
        for wrong in ["", "{}", "7", r#"{"products":{}}"#] {
            assert!(events(wrong).is_err(), "{wrong}");
        }
    }
}
