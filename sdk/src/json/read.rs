//! A serde deserializer over JSON text.
//!
//! Where a string or bytes are asked for, kombu's typed values stand for what they carry: the text of a `datetime`,
//! `date`, `time` or `decimal`, the digits of a `uuid`, the bytes of `bytes` and `base64`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::keys::Key;
use super::scan::Scanner;
use super::{DEPTH_MAX, JsonError, members};

/// Decodes one value; nothing may follow it.
pub(crate) fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, JsonError> {
    let mut reader = Reader { scanner: Scanner::new(text), depth: 0 };
    let value = T::deserialize(&mut reader)?;
    reader.scanner.end()?;
    Ok(value)
}

struct Reader<'de> {
    scanner: Scanner<'de>,
    depth: u32,
}

impl<'de> Reader<'de> {
    fn number<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        if self.scanner.word("-Infinity") {
            return visitor.visit_f64(f64::NEG_INFINITY);
        }
        let text = self.scanner.number();
        if !is_number(text) {
            return Err(self.scanner.error("a number that is not JSON"));
        }
        if text.contains(['.', 'e', 'E']) {
            // As in Python, a float out of range is infinite.
            return visitor.visit_f64(text.parse().map_err(JsonError::custom)?);
        }
        if let Ok(number) = text.parse::<u64>() {
            return visitor.visit_u64(number);
        }
        if let Ok(number) = text.parse::<i64>() {
            return visitor.visit_i64(number);
        }
        if let Ok(number) = text.parse::<i128>() {
            return visitor.visit_i128(number);
        }
        match text.parse::<u128>() {
            Ok(number) => visitor.visit_u128(number),
            Err(_) => Err(JsonError::new(format!("the integer `{text}` needs more than 128 bits"))),
        }
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, JsonError>) -> Result<T, JsonError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.scanner.error("nested too deeply"));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        self.nested(|reader| {
            reader.scanner.expect(b'[')?;
            let value = visitor.visit_seq(Items { reader, close: b']', first: true })?;
            reader.scanner.expect(b']')?;
            Ok(value)
        })
    }

    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        self.nested(|reader| {
            reader.scanner.expect(b'{')?;
            let value = visitor.visit_map(Items { reader, close: b'}', first: true })?;
            reader.scanner.expect(b'}')?;
            Ok(value)
        })
    }

    fn string<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, JsonError> {
        match self.scanner.string()? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    /// The typed value that starts here, taken, if there is one.
    fn typed(&mut self) -> Result<Option<Typed<'de>>, JsonError> {
        if self.scanner.peek() != Some(b'{') {
            return Ok(None);
        }
        let mut ahead = self.scanner.clone();
        let found = Typed::read(ahead.value()?)?;
        if found.is_some() {
            self.scanner = ahead;
        }
        Ok(found)
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.scanner.peek() {
            Some(b'"') => self.string(visitor),
            Some(b'[') => self.array(visitor),
            Some(b'{') => self.object(visitor),
            Some(b'0'..=b'9' | b'-') => self.number(visitor),
            Some(b'n') if self.scanner.word("null") => visitor.visit_unit(),
            Some(b't') if self.scanner.word("true") => visitor.visit_bool(true),
            Some(b'f') if self.scanner.word("false") => visitor.visit_bool(false),
            Some(b'N') if self.scanner.word("NaN") => visitor.visit_f64(f64::NAN),
            Some(b'I') if self.scanner.word("Infinity") => visitor.visit_f64(f64::INFINITY),
            Some(_) => Err(self.scanner.error("expected a value")),
            None => Err(self.scanner.error("the value is cut off")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.scanner.peek() {
            Some(b'n') if self.scanner.word("null") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        if self.scanner.peek() == Some(b'"') {
            return visitor.visit_enum(self.scanner.string()?.into_deserializer());
        }
        self.nested(|reader| {
            reader.scanner.expect(b'{')?;
            let value = visitor.visit_enum(Variant { reader })?;
            reader.scanner.expect(b'}')?;
            Ok(value)
        })
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.typed()? {
            Some(typed) => match typed.text()? {
                Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                Cow::Owned(text) => visitor.visit_string(text),
            },
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.typed()? {
            Some(typed) => visitor.visit_byte_buf(typed.bytes()?),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.scanner.value()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char unit unit_struct seq tuple tuple_struct map struct
        identifier
    }
}

/// The elements of an array or the members of an object, up to `close`.
struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    close: u8,
    first: bool,
}

impl Items<'_, '_> {
    /// Whether another item begins here; takes the comma before it.
    fn more(&mut self) -> Result<bool, JsonError> {
        if self.reader.scanner.peek() == Some(self.close) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.first) {
            self.reader.scanner.expect(b',')?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        if self.more()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        if !self.more()? {
            return Ok(None);
        }
        self.reader.scanner.peek();
        seed.deserialize(Key(self.reader.scanner.string()?)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        self.reader.scanner.expect(b':')?;
        seed.deserialize(&mut *self.reader)
    }
}

/// The one member of an object that stands for an enum's variant.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), JsonError> {
        self.reader.scanner.peek();
        let name = self.reader.scanner.string()?;
        self.reader.scanner.expect(b':')?;
        Ok((seed.deserialize(Key(name))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        Deserialize::deserialize(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, JsonError> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.reader.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.reader.deserialize_any(visitor)
    }
}

/// One of kombu's typed values: an object of exactly `__type__` and `__value__`.
struct Typed<'de> {
    kind: Cow<'de, str>,
    value: &'de str,
}

impl<'de> Typed<'de> {
    fn read(text: &'de str) -> Result<Option<Self>, JsonError> {
        let (mut kind, mut value) = (None, None);
        for (name, member) in members(text)? {
            match name.as_ref() {
                "__type__" if member.starts_with('"') => kind = Some(Scanner::new(member).string()?),
                "__value__" => value = Some(member),
                _ => return Ok(None),
            }
        }
        Ok(kind.zip(value).map(|(kind, value)| Self { kind, value }))
    }

    fn text(&self) -> Result<Cow<'de, str>, JsonError> {
        let mut value = Scanner::new(self.value);
        match self.kind.as_ref() {
            "uuid" => {
                let hex = members(self.value)?.into_iter().find(|(name, _)| name == "hex");
                let (_, hex) = hex.ok_or_else(|| JsonError::new("a `uuid` without `hex`"))?;
                Scanner::new(hex).string()
            }
            "base64" => String::from_utf8(self.bytes()?).map(Cow::Owned).map_err(JsonError::custom),
            _ => value.string(),
        }
    }

    fn bytes(&self) -> Result<Vec<u8>, JsonError> {
        let text = Scanner::new(self.value).string()?;
        match self.kind.as_ref() {
            "bytes" => Ok(text.into_owned().into_bytes()),
            "base64" => STANDARD.decode(text.as_bytes()).map_err(JsonError::custom),
            other => Err(JsonError::new(format!("expected bytes, got a `{other}`"))),
        }
    }
}

/// JSON's grammar of numbers.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}
