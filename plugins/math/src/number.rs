//! A number as Python counts them: an integer or a float, and an integer stays one.

use std::fmt;

use rwork::TaskError;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An integer of up to 128 bits, or a float. An argument of a type of its own needs no more than serde's two traits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Python's `int`, as far as 128 bits go; past that it is an `OverflowError`, never a rounded float.
    Integer(i128),
    /// Python's `float`, `NaN` and the infinities included.
    Float(f64),
}

impl Number {
    /// The sum.
    ///
    /// # Errors
    ///
    /// `OverflowError` when the sum of two integers needs more than 128 bits.
    pub fn plus(self, other: Self) -> Result<Self, TaskError> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => {
                a.checked_add(b).map(Self::Integer).ok_or_else(|| too_large("sum"))
            }
            (a, b) => Ok(Self::Float(a.to_float() + b.to_float())),
        }
    }

    /// The product.
    ///
    /// # Errors
    ///
    /// `OverflowError` when the product of two integers needs more than 128 bits.
    pub fn times(self, other: Self) -> Result<Self, TaskError> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => {
                a.checked_mul(b).map(Self::Integer).ok_or_else(|| too_large("product"))
            }
            (a, b) => Ok(Self::Float(a.to_float() * b.to_float())),
        }
    }

    fn to_float(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Float(number) => number,
        }
    }
}

fn too_large(what: &str) -> TaskError {
    TaskError::new("OverflowError", format!("the {what} needs more than 128 bits"))
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Integer(number) => serializer.serialize_i128(number),
            Self::Float(number) => serializer.serialize_f64(number),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        Ok(Number::Integer(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number::Integer(number.into()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Number, E> {
        Ok(Number::Integer(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        Ok(Number::Float(number))
    }
}
