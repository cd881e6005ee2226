//! Samples and what is said of them: median, quartiles, and ratios pair by pair.
//!
//! Invariant: of no sample nothing is said; NaN meets no goal.

/// What was measured, in the order in which it was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

/// Median and quartiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Samples {
    /// A figure that was measured once.
    pub(crate) fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn spread(&self) -> Spread {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(&sorted, part));
        Spread { low, median, high }
    }

    pub(crate) fn median(&self) -> f64 {
        self.spread().median
    }

    pub(crate) fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// Each sample with the one of the other side that was taken beside it; medians where there are no pairs.
    pub(crate) fn with(&self, other: &Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        if self.0.len() == other.0.len() {
            Self(self.0.iter().zip(&other.0).map(|(one, other)| combine(*one, *other)).collect())
        } else {
            Self::one(combine(self.median(), other.median()))
        }
    }
}

/// Between two samples: by how far it lies between them.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = part * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}
