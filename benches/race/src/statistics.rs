//! Summarises the figures of several rounds.

use statrs::distribution::{Binomial, DiscreteCDF};

/// The median of those that are not missing; NaN if there is none.
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let figures = sorted(figures);
    match figures.len() {
        0 => f64::NAN,
        count => (figures[(count - 1) / 2] + figures[count / 2]) / 2.0,
    }
}

/// The geometric mean, in which a factor and its inverse cancel out.
pub fn geometric_mean(figures: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = figures.map(f64::ln).collect();
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}

/// The two figures between which the true median lies with a probability of at least 95 %,
/// whatever the distribution. None of fewer than six figures.
///
/// Each figure is above or below the true median like a coin toss, so the number of those below
/// is binomial. The bounds are as many figures from each end as are hardly ever all on one side.
pub fn bounds_of_median(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let figures = sorted(figures);
    let below = Binomial::new(0.5, figures.len() as u64).ok()?;
    let beyond = (0..figures.len()).take_while(|&rank| below.cdf(rank as u64) <= 0.025).count();
    Some((*figures.get(beyond.checked_sub(1)?)?, figures[figures.len() - beyond]))
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.filter(|figure| !figure.is_nan()).collect();
    figures.sort_by(f64::total_cmp);
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // From tables of the sign test: the ranks for samples of this size.
        for (count, low, high) in [(6, 1, 6), (9, 2, 8), (12, 3, 10), (20, 6, 15), (25, 8, 18)] {
            let ranks = (1..=count).rev().map(f64::from);
            assert_eq!(bounds_of_median(ranks), Some((f64::from(low), f64::from(high))), "{count}");
        }
        assert_eq!(bounds_of_median((1..=5).map(f64::from)), None);
    }

    #[test]
    fn what_is_missing_does_not_count() {
        assert_eq!(median([f64::NAN, 3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([3.0, 1.0].into_iter()), 2.0);
        assert!(median([].into_iter()).is_nan());
        assert!((geometric_mean([0.5, 2.0].into_iter()) - 1.0).abs() < 1e-12);
    }
}
