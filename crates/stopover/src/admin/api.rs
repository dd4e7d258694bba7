//! The operator's port for programs: documents of JSON under `/api/v1`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};

use super::Admin;

const JSON: &str = "application/json";

/// Answers what is left of each registry's pull limit.
pub(super) async fn quota(State(admin): State<Arc<Admin>>) -> Response {
    match serde_json::to_string_pretty(&(admin.quota)()) {
        Ok(text) => {
            ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], format!("{text}\n")).into_response()
        }
        // Numbers and texts alone: there is nothing in it that JSON lacks.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
