//! What every round of every contestant found, and what follows from it.

use race::driver::{Contestant, NEAP};
use race::results::{Results, Row};
use race::statistics::{bounds_of_median, median};
use race::{Report, workloads};
use std::collections::BTreeMap;

/// A workload and an allocator, by their numbers.
pub type Key = (usize, usize);

/// Of the chosen workloads and allocators.
pub struct Reports {
    /// The workloads, by their numbers.
    pub chosen: Vec<usize>,
    /// The allocators' names.
    pub names: Vec<&'static str>,
    /// In the order of the rounds.
    pub all: BTreeMap<Key, Vec<Report>>,
}

/// Neap's times beside those of the peers that were best in one half of the rounds, in the other.
pub struct Standing {
    /// The best ones of the halves.
    pub peers: [usize; 2],
    /// The median of the ratios, round by round.
    pub ratio: f64,
    /// Between which bounds it lies with 95 %, if there were rounds enough.
    pub bounds: Option<(f64, f64)>,
}

impl Reports {
    /// None so far.
    pub fn new(chosen: Vec<usize>, names: Vec<&'static str>) -> Self {
        Self { chosen, names, all: BTreeMap::new() }
    }

    /// One more.
    pub fn add(&mut self, key: Key, report: Report) {
        self.all.entry(key).or_default().push(report);
    }

    /// Which of the allocators is Neap.
    pub fn neap(&self) -> Option<usize> {
        self.names.iter().position(|name| *name == NEAP)
    }

    /// Every report by the names of its workload and allocator.
    pub fn named(&self) -> BTreeMap<&str, BTreeMap<&str, &[Report]>> {
        let mut named = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (&(workload, allocator), reports) in &self.all {
            let title = workloads::ALL[workload].name;
            named.entry(title).or_default().insert(self.names[allocator], reports.as_slice());
        }
        named
    }

    /// Whether it is a peer whose best time in the first two rounds was so many times the best peer's.
    pub fn is_left_out(&self, key: Key, allocators: &[&Contestant], leave_out: f64) -> bool {
        let is_peer = |&index: &usize| !allocators[index].is_neap();
        let best = |allocator| {
            let times = self.all.get(&(key.0, allocator)).into_iter().flatten().take(2);
            times.map(|report| report.seconds).fold(f64::INFINITY, f64::min)
        };
        let peers = (0..allocators.len()).filter(is_peer);
        let limit = leave_out * peers.map(best).fold(f64::INFINITY, f64::min);
        is_peer(&key.1) && best(key.1) > limit
    }

    /// The median of a figure.
    pub fn median(&self, key: Key, figure: fn(&Report) -> f64) -> f64 {
        median(self.all.get(&key).into_iter().flatten().map(figure))
    }

    /// Each allocator's median of a figure, and Neap's by the least of the others'.
    pub fn medians(&self, workload: usize, figure: fn(&Report) -> f64) -> (Vec<f64>, f64) {
        let neap = self.neap();
        let medians: Vec<f64> =
            (0..self.names.len()).map(|index| self.median((workload, index), figure)).collect();
        let peers = medians.iter().enumerate().filter(|(index, _)| Some(*index) != neap);
        let best = peers.map(|(_, figure)| *figure).fold(f64::INFINITY, f64::min);
        let own = neap.map_or(f64::NAN, |neap| medians[neap]);
        (medians, own / best)
    }

    /// How Neap stands. Of several equal peers one always did best by luck, so who is the best in
    /// half of the rounds is told by the other half. Of unequal ones that picks a slower one now
    /// and then: the truth lies between this and the least median.
    pub fn standing(&self, workload: usize) -> Option<Standing> {
        let neap = self.neap()?;
        let peers = [self.best_peer(workload, 0)?, self.best_peer(workload, 1)?];
        let ratios = [(0, peers[1]), (1, peers[0])].into_iter().flat_map(|(half, peer)| {
            let times = |allocator| self.times((workload, allocator), half);
            times(neap).zip(times(peer)).map(|(own, peer)| own / peer)
        });
        let ratios: Vec<f64> = ratios.collect();
        let ratio = median(ratios.iter().copied());
        Some(Standing { peers, ratio, bounds: bounds_of_median(ratios.into_iter()) })
    }

    /// The times, for a file.
    pub fn results(&self, about: Vec<(String, String)>) -> Results {
        let rows = self.chosen.iter().map(|&workload| {
            let (milliseconds, to_best) = self.medians(workload, |report| report.seconds * 1000.0);
            let standing = self.standing(workload);
            let bounds = standing.as_ref().and_then(|standing| standing.bounds);
            Row {
                workload: workloads::ALL[workload].name.to_owned(),
                milliseconds,
                to_best: if to_best == 0.0 { f64::NAN } else { to_best },
                by_other_rounds: standing.map_or(f64::NAN, |standing| standing.ratio),
                bounds: bounds.map_or([f64::NAN; 2], |(low, high)| [low, high]),
            }
        });
        let allocators = self.names.iter().map(|&name| name.to_owned()).collect();
        Results { about, allocators, rows: rows.collect() }
    }

    /// Of those that ran in every round, the peer with the least median time in one half of them.
    fn best_peer(&self, workload: usize, half: usize) -> Option<usize> {
        let rounds = |peer: &usize| self.all.get(&(workload, *peer)).map_or(0, Vec::len);
        let time = |peer: &usize| median(self.times((workload, *peer), half));
        let peers = || (0..self.names.len()).filter(|&index| self.names[index] != NEAP);
        let all = peers().map(|peer| rounds(&peer)).max()?;
        let able = peers().filter(|peer| rounds(peer) == all && !time(peer).is_nan());
        able.min_by(|one, other| time(one).total_cmp(&time(other)))
    }

    /// The times of one half of the rounds: two of every four, so that each half has both turns.
    fn times(&self, key: Key, half: usize) -> impl Iterator<Item = f64> {
        let rounds = self.all.get(&key).into_iter().flatten().enumerate();
        rounds.filter(move |(round, _)| round / 2 % 2 == half).map(|(_, report)| report.seconds)
    }
}
