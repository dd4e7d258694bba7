//! Certificates of the pull port: made, read, checked, renewed.

mod development;
mod facts;

pub use development::{DevelopmentError, Made, make as make_for_development};
