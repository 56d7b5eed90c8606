//! A serde serializer to JSON text, as Python's `json` with kombu's extension writes it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::JsonError;
use super::keys::KeyWriter;

/// Encodes one value.
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let mut out = String::new();
    value.serialize(Writer { out: &mut out })?;
    Ok(out)
}

/// Encodes one value, as the bytes of a payload.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, JsonError> {
    to_string(value).map(String::into_bytes)
}

/// Appends a string with its quotes.
pub(crate) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(text.get(plain..index).unwrap_or_default());
        out.push_str(escape);
        if escape.is_empty() {
            _ = write!(out, "\\u{byte:04x}");
        }
        plain = index + 1;
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// Writes one value to the end of a text.
struct Writer<'a> {
    out: &'a mut String,
}

/// Numbers whose JSON is what Rust displays.
macro_rules! display {
    ($($method:ident $kind:ty,)*) => {$(
        fn $method(self, value: $kind) -> Result<(), JsonError> {
            _ = write!(self.out, "{value}");
            Ok(())
        }
    )*};
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = List<'a>;
    type SerializeMap = List<'a>;
    type SerializeStruct = List<'a>;
    type SerializeStructVariant = List<'a>;

    display! {
        serialize_bool bool,
        serialize_i8 i8,
        serialize_i16 i16,
        serialize_i32 i32,
        serialize_i64 i64,
        serialize_i128 i128,
        serialize_u8 u8,
        serialize_u16 u16,
        serialize_u32 u32,
        serialize_u64 u64,
        serialize_u128 u128,
    }

    fn serialize_f32(self, value: f32) -> Result<(), JsonError> {
        match value.is_finite() {
            true => _ = write!(self.out, "{value:?}"),
            false => self.out.push_str(non_finite(f64::from(value))),
        }
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), JsonError> {
        match value.is_finite() {
            true => _ = write!(self.out, "{value:?}"),
            false => self.out.push_str(non_finite(value)),
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), JsonError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), JsonError> {
        write_string(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), JsonError> {
        self.out.push_str("{\"__type__\":\"base64\",\"__value__\":\"");
        STANDARD.encode_string(value, self.out);
        self.out.push_str("\"}");
        Ok(())
    }

    fn serialize_none(self) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), JsonError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), JsonError> {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), JsonError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), JsonError> {
        let list = List::variant(self.out, variant, "");
        value.serialize(Writer { out: list.out })?;
        list.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, JsonError> {
        Ok(List::open(self.out, "[", "]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, JsonError> {
        Ok(List::open(self.out, "[", "]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, JsonError> {
        Ok(List::open(self.out, "[", "]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'a>, JsonError> {
        Ok(List::variant(self.out, variant, "["))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<List<'a>, JsonError> {
        Ok(List::open(self.out, "{", "}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<List<'a>, JsonError> {
        Ok(List::open(self.out, "{", "}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<List<'a>, JsonError> {
        Ok(List::variant(self.out, variant, "{"))
    }
}

/// An array or object that is being written.
pub(super) struct List<'a> {
    out: &'a mut String,
    close: &'static str,
    first: bool,
}

impl<'a> List<'a> {
    fn open(out: &'a mut String, open: &str, close: &'static str) -> Self {
        out.push_str(open);
        Self { out, close, first: true }
    }

    /// `{"Variant": open`
    fn variant(out: &'a mut String, variant: &str, open: &str) -> Self {
        out.push('{');
        write_string(out, variant);
        out.push(':');
        let close = match open {
            "[" => "]}",
            "{" => "}}",
            _ => "}",
        };
        Self::open(out, open, close)
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(',');
        }
    }

    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.comma();
        value.serialize(Writer { out: self.out })
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), JsonError> {
        self.comma();
        write_string(self.out, name);
        self.out.push(':');
        value.serialize(Writer { out: self.out })
    }

    fn finish(self) -> Result<(), JsonError> {
        self.out.push_str(self.close);
        Ok(())
    }
}

/// The four traits for arrays differ in name only.
macro_rules! arrays {
    ($($which:ident $method:ident,)*) => {$(
        impl $which for List<'_> {
            type Ok = ();
            type Error = JsonError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.item(value)
            }

            fn end(self) -> Result<(), JsonError> {
                self.finish()
            }
        }
    )*};
}

arrays! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

/// So do the two for objects with known names.
macro_rules! objects {
    ($($which:ident,)*) => {$(
        impl $which for List<'_> {
            type Ok = ();
            type Error = JsonError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), JsonError> {
                self.member(name, value)
            }

            fn end(self) -> Result<(), JsonError> {
                self.finish()
            }
        }
    )*};
}

objects! {
    SerializeStruct,
    SerializeStructVariant,
}

impl SerializeMap for List<'_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        self.comma();
        let name = key.serialize(KeyWriter)?;
        write_string(self.out, &name);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.out.push(':');
        value.serialize(Writer { out: self.out })
    }

    fn end(self) -> Result<(), JsonError> {
        self.finish()
    }
}

/// What Python calls a float that JSON has no word for.
fn non_finite(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}
