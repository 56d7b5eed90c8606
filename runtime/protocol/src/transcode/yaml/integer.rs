//! PyYAML's integers: five notations, any size up to what Python itself prints.

/// Most decimal digits of an integer, as in Python and in this crate's JSON.
const DIGITS_MAX: usize = 4300;

/// An integer in decimal, as `construct_yaml_int` makes it: `0b101`, `0x1F`, `017`, `1:30:00`, `1_000`.
/// `None` when it is none of these, or too long.
pub(super) fn decimal(text: &str) -> Option<String> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.split_at_checked(1) {
        Some(("-", digits)) => ("-", digits),
        Some(("+", digits)) => ("", digits),
        _ => ("", text.as_str()),
    };
    let number = if let Some(digits) = digits.strip_prefix("0b") {
        Number::in_base(digits, 2)?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        Number::in_base(digits, 16)?
    } else if digits.len() > 1 && digits.starts_with('0') && !digits.contains(':') {
        Number::in_base(digits, 8)?
    } else if digits.contains(':') {
        sexagesimal(digits)?
    } else if digits.len() <= DIGITS_MAX && is_digits(digits) {
        // The common case: decimal already.
        return Some(if digits == "0" { "0".to_owned() } else { format!("{sign}{digits}") });
    } else {
        return None;
    };
    let digits = number.decimal();
    Some(if digits == "0" { digits } else { format!("{sign}{digits}") })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `1:30:00`: each part sixty times the next.
fn sexagesimal(digits: &str) -> Option<Number> {
    let mut number = Number::default();
    for part in digits.split(':') {
        if !is_digits(part) {
            return None;
        }
        if number.is_zero() {
            number = Number::in_base(part, 10)?;
        } else {
            number.multiply_add(60, part.parse().ok().filter(|part| *part < LIMB)?)?;
        }
    }
    Some(number)
}

/// A number of any size in limbs of nine decimal digits, the lowest first.
#[derive(Default)]
struct Number(Vec<u32>);

const LIMB: u32 = 1_000_000_000;

const LIMB_DIGITS: usize = 9;

impl Number {
    fn in_base(digits: &str, base: u32) -> Option<Self> {
        if digits.is_empty() {
            return None;
        }
        let mut number = Self::default();
        // So many digits at a time as fit: then the whole takes little more than its length in steps.
        let at_once = LIMB.ilog(base) as usize;
        for chunk in digits.as_bytes().chunks(at_once) {
            let value = u32::from_str_radix(std::str::from_utf8(chunk).ok()?, base).ok()?;
            number.multiply_add(base.pow(chunk.len() as u32), value)?;
        }
        Some(number)
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// `None` when it gets too long. Both are at most [`LIMB`].
    fn multiply_add(&mut self, by: u32, add: u32) -> Option<()> {
        let mut carry = u64::from(add);
        for limb in &mut self.0 {
            let value = u64::from(*limb) * u64::from(by) + carry;
            // Less than a limb, which fits.
            *limb = (value % u64::from(LIMB)) as u32;
            carry = value / u64::from(LIMB);
        }
        while carry > 0 {
            self.0.push((carry % u64::from(LIMB)) as u32);
            carry /= u64::from(LIMB);
        }
        (self.0.len() <= DIGITS_MAX / LIMB_DIGITS).then_some(())
    }

    fn decimal(&self) -> String {
        let mut limbs = self.0.iter().rev();
        let mut text = limbs.next().map_or("0".to_owned(), u32::to_string);
        for limb in limbs {
            text.push_str(&format!("{limb:09}"));
        }
        text
    }
}
