//! Amounts of CPU and memory, as Kubernetes writes them.
//!
//! Invariant: what is written is Kubernetes' canonical form, so that the API server gives it back unchanged
//! and an injected pod is recognized. Only the forms that people write are read.

use std::fmt;

/// An amount that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not an amount of CPU.
    #[error("not an amount of CPU: write e.g. 50m or 0.5")]
    Cpu,
    /// Not an amount of memory.
    #[error("not an amount of memory: write e.g. 64Mi")]
    Memory,
}

/// An amount of CPU, in thousandths of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(u64);

/// An amount of memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

const BINARY: [&str; 5] = ["", "Ki", "Mi", "Gi", "Ti"];

impl Cpu {
    /// Reads `50m`, `2` or `0.5`.
    ///
    /// # Errors
    /// It is none of them, or finer than a thousandth.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let millis = match (text.strip_suffix('m'), text.split_once('.')) {
            (Some(millis), _) => digits(millis),
            (None, Some((whole, part))) if (1..=3).contains(&part.len()) => {
                let scale = [100, 10, 1][part.len() - 1];
                let part = digits(part).map(|part| part * scale);
                let whole = digits(whole).and_then(|whole| whole.checked_mul(1_000));
                whole.zip(part).and_then(|(whole, part)| whole.checked_add(part))
            }
            (None, Some(_)) => None,
            (None, None) => digits(text).and_then(|whole| whole.checked_mul(1_000)),
        };
        millis.map(Self).ok_or(QuantityError::Cpu)
    }
}

impl Memory {
    /// Reads `64Mi`, `64M` or a number of bytes.
    ///
    /// # Errors
    /// It is none of them.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (amount, unit) = text.split_at(end);
        let unit = match unit {
            "k" => Some(1_000),
            "M" => Some(1_000_000),
            "G" => Some(1_000_000_000),
            unit => BINARY.iter().position(|one| *one == unit).map(|power| 1_u64 << (10 * power)),
        };
        let bytes = digits(amount).zip(unit).and_then(|(amount, unit)| amount.checked_mul(unit));
        bytes.map(Self).ok_or(QuantityError::Memory)
    }
}

/// At most 15 digits: far above any machine, far below an overflow of ours or of Kubernetes.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000 {
            0 => write!(f, "{}", self.0 / 1_000),
            _ => write!(f, "{}m", self.0),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut amount, mut unit) = (self.0, 0);
        while amount != 0 && amount.is_multiple_of(1_024) && unit + 1 < BINARY.len() {
            amount /= 1_024;
            unit += 1;
        }
        write!(f, "{amount}{}", BINARY[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_the_canonical_form() {
        for (text, canonical) in
            [("10m", "10m"), ("1000m", "1"), ("0.5", "500m"), ("1.25", "1250m"), ("2", "2")]
        {
            assert_eq!(Cpu::parse(text).unwrap().to_string(), canonical);
        }
        for (text, canonical) in [
            ("16Mi", "16Mi"),
            ("1024Ki", "1Mi"),
            ("128M", "125000Ki"),
            ("1048576", "1Mi"),
            ("1000", "1000"),
            ("0", "0"),
        ] {
            assert_eq!(Memory::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "m", "-1", "1e3", "0.0001", "1.", ".5", "+1", "1 ", "9999999999999999"] {
            assert_eq!(Cpu::parse(text), Err(QuantityError::Cpu), "{text}");
        }
        for text in ["", "Mi", "-1Mi", "1.5Gi", "64mi", "64 Mi", "999999999999999Ti", "1Ei"] {
            assert_eq!(Memory::parse(text), Err(QuantityError::Memory), "{text}");
        }
    }
}
