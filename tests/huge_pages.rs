//! Huge pages, the system's of 2 MiB: they come where they are wanted, and hold no
//! memory back.
#![cfg(target_os = "linux")]

mod common;

use common::{MIB, Random, child_succeeds, resident};
use neap::Neap;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::time::Duration;

// No tick but by growth and by hand. One by the clock would find a test that waits for a
// processor idle, and return part of the huge page that it was about to fill.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600));

/// The `libc` crate has it for some C libraries only.
const MADV_COLLAPSE: libc::c_int = 25;

const ON: [(&str, &str); 1] = [("NEAP_HUGE_PAGES", "1")];

/// Whether the system's setting for huge pages is `word`. None if it has no such setting.
fn system_setting_is(word: &str) -> Option<bool> {
    let enabled = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    Some(enabled.ok()?.contains(&format!("[{word}]")))
}

/// Whether the system gives huge pages to those who ask.
fn on_offer() -> bool {
    system_setting_is("never") == Some(false)
}

/// Runs `body` in a child process with huge pages, if they are on offer.
fn with_huge_pages(test: &str, body: impl FnOnce()) {
    if on_offer() {
        child_succeeds(test, &ON, body);
    }
}

/// The process's mappings, with the kernel's flags of each.
fn mappings() -> Vec<(Range<usize>, String)> {
    let text = fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut all = Vec::new();
    let mut range = 0..0;
    for line in text.lines() {
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((from, rest)) = line.split_once('-')
            && let Some((end, _)) = rest.split_once(' ')
            && let (Some(from), Some(end)) = (address(from), address(end))
        {
            range = from..end;
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            all.push((range.clone(), flags.to_owned()));
        }
    }
    all
}

/// Whether the mappings that all the addresses lie in have a flag: `hg`, huge pages
/// wanted, or `nh`, not wanted.
fn have_flag(addresses: impl Iterator<Item = usize>, flag: &str) -> bool {
    let mappings = mappings();
    let mut last = &(0..0, String::new());
    let mut right = false;
    let mut all = addresses.map(|address| {
        // Neighbours mostly lie in the same one.
        if !last.0.contains(&address) {
            last = mappings.iter().find(|(range, _)| range.contains(&address)).expect("a mapping");
            right = last.1.split_whitespace().any(|word| word == flag);
        }
        right
    });
    all.all(|right| right)
}

fn addresses(blocks: &[Box<[u8]>]) -> impl Iterator<Item = usize> {
    blocks.iter().map(|block| block.as_ptr() as usize)
}

/// Bytes of huge pages in this process.
fn huge() -> usize {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let line = text.lines().find(|line| line.starts_with("AnonHugePages:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|word| word.parse::<usize>().ok()).expect("a number") * 1024
}

/// How many of these blocks lie on a page that is part of a larger one for the kernel.
/// None without the right to look.
fn on_parts_of_larger_pages<'a>(blocks: impl Iterator<Item = &'a Box<[u8]>>) -> Option<usize> {
    let pages = File::open("/proc/self/pagemap").ok()?;
    let flags = File::open("/proc/kpageflags").ok()?;
    let read = |file: &File, index: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, index * 8).ok()?;
        Some(u64::from_ne_bytes(word))
    };
    let mut parts = 0;
    for block in blocks {
        let frame = read(&pages, block.as_ptr() as u64 / 4096)? & ((1 << 55) - 1);
        let flags = (frame != 0).then(|| read(&flags, frame)).flatten()?;
        // The head of a compound page, or a later part of it.
        parts += (flags >> 15 & 0b11 != 0) as usize;
    }
    Some(parts)
}

/// Checks that the pages of these blocks are no longer parts of larger ones.
fn split_for_good(all: &[Box<[u8]>]) {
    let some = || all.iter().step_by(all.len().div_ceil(10_000));
    if let Some(parts) = on_parts_of_larger_pages(some()) {
        let count = some().count();
        assert!(parts < count / 10, "{parts} of {count} on parts of larger pages");
    }
}

/// Blocks of 32 to 512 bytes, of so many bytes in all.
fn blocks(bytes: usize, random: &mut Random) -> Vec<Box<[u8]>> {
    let sizes: Vec<usize> = (32..=512).collect();
    of_sizes(&sizes, bytes, random)
}

/// The same with these sizes, each as often.
fn of_sizes(sizes: &[usize], bytes: usize, random: &mut Random) -> Vec<Box<[u8]>> {
    let mut sum = 0;
    let all = std::iter::from_fn(|| {
        let size = sizes[random.below(sizes.len())];
        sum += size;
        (sum < bytes).then(|| vec![1; size].into_boxed_slice())
    });
    all.collect()
}

#[test]
fn all_pages_are_small_unless_wanted() {
    if !on_offer() {
        return;
    }
    child_succeeds("all_pages_are_small_unless_wanted", &[("NEAP_HUGE_PAGES", "0")], || {
        let all = blocks(256 * MIB, &mut Random(1));
        assert!(have_flag(addresses(&all), "nh"));
        // Stacks may have some.
        assert!(huge() < 16 * MIB, "{}", huge());
    });
}

#[test]
fn without_a_setting_it_is_as_the_system_has_it() {
    child_succeeds("without_a_setting_it_is_as_the_system_has_it", &[], || {
        let always = system_setting_is("always") == Some(true);
        let all = blocks(64 * MIB, &mut Random(3));
        assert_eq!(huge() > 32 * MIB, always, "{} {}", huge(), neap::stats());
        drop(all);
    });
}

#[test]
fn mapped_blocks_do_as_configured() {
    if !on_offer() {
        return;
    }
    for value in ["0", "1"] {
        child_succeeds("mapped_blocks_do_as_configured", &[("NEAP_HUGE_PAGES", value)], || {
            // The child is always in the loop's first round.
            let flag = if std::env::var("NEAP_HUGE_PAGES").as_deref() == Ok("0") { "nh" } else { "hg" };
            let block = vec![1u8; 20 * MIB];
            assert!(have_flag([block.as_ptr() as usize + 10 * MIB].into_iter(), flag));
        });
    }
}

#[test]
fn lasting_growth_gets_huge_pages_and_keeps_them_while_in_use() {
    with_huge_pages("lasting_growth_gets_huge_pages_and_keeps_them_while_in_use", || {
        // Of as many classes as have spans in one huge page, all in use.
        let all = of_sizes(&[24, 40, 56, 80, 112, 128, 160, 256, 400, 512], 128 * MIB, &mut Random(2));
        let grown = huge();
        println!("{} KiB of huge pages above the start", grown >> 10);
        assert!(grown > 120 * MIB, "{grown} {}", neap::stats());
        // Nothing to return that is worth it.
        (0..4).for_each(|_| neap::tick());
        println!("{} KiB of huge pages above the start", huge() >> 10);
        assert!(huge() > grown - grown / 8, "{} of {grown}", huge());
        // The advice has ended, or the system would fill up again what is returned.
        assert!(have_flag(addresses(&all), "nh"));
    });
}

#[test]
fn growth_after_much_was_returned_gets_small_pages() {
    with_huge_pages("growth_after_much_was_returned_gets_small_pages", || {
        let found = (0..20).filter(|&round| {
            drop(blocks(64 * MIB, &mut Random(6 + round)));
            neap::purge();
            let few = of_sizes(&[2048], 3 * MIB, &mut Random(7));
            let huge = huge();
            drop(few);
            huge > 0
        });
        assert_eq!(found.count(), 0, "times that huge pages came");
    });
}

#[test]
fn a_few_free_pages_do_not_split_a_huge_one() {
    with_huge_pages("a_few_free_pages_do_not_split_a_huge_one", || {
        let mut all: Vec<Box<[u8]>> = (0..256 << 9).map(|_| vec![1; 2048].into_boxed_slice()).collect();
        let grown = huge();
        assert!(grown > 128 * MIB, "{grown} {}", neap::stats());
        // Four pages of each 512.
        all.retain(|block| !(MIB..MIB + 16384).contains(&(block.as_ptr() as usize % (2 * MIB))));
        (0..4).for_each(|_| neap::tick());
        assert!(huge() > grown - grown / 8, "{} of {grown}", huge());
        // A purge spares none.
        neap::purge();
        assert!(huge() < 16 * MIB, "{} of {grown}", huge());
    });
}

/// Grows, frees what is not to be kept, ticks, and checks what is still resident.
fn keep(most: usize, kept: impl Fn(usize, &[u8]) -> bool) {
    let start = resident();
    let mut all = blocks(192 * MIB, &mut Random(4));
    assert!(huge() > 128 * MIB, "{}", neap::stats());
    let mut index = 0;
    all.retain(|block| {
        index += 1;
        kept(index, block)
    });
    all.shrink_to_fit();
    (0..4).for_each(|_| neap::tick());
    let left = resident().saturating_sub(start);
    println!("{} KiB above the start", left >> 10);
    assert!(left < most, "{left} {}", neap::stats());
    split_for_good(&all);
}

#[test]
fn pages_of_a_huge_page_are_returned_for_good() {
    with_huge_pages("pages_of_a_huge_page_are_returned_for_good", || {
        // A page to each of 7,000 blocks, metadata, and what shrank.
        keep(37 * MIB, |index, _| index % 100 == 0);
    });
}

#[test]
fn slices_of_a_huge_page_are_returned_for_good() {
    with_huge_pages("slices_of_a_huge_page_are_returned_for_good", || {
        // The upper half of each.
        keep(123 * MIB, |_, block| block.as_ptr() as usize & MIB != 0);
    });
}

#[test]
fn slices_that_were_locked_are_returned_for_good_later() {
    with_huge_pages("slices_that_were_locked_are_returned_for_good_later", || {
        let mut all = of_sizes(&[256], 128 * MIB, &mut Random(8));
        let (from, end) = (addresses(&all).min(), addresses(&all).max());
        let (from, end) = (from.expect("a block") & !4095, end.expect("a block"));
        // SAFETY: nothing is written.
        if unsafe { libc::mlock(from as *const libc::c_void, end - from) } != 0 {
            return;
        }
        all.retain(|block| block.as_ptr() as usize & MIB != 0);
        (0..3).for_each(|_| neap::tick());
        // SAFETY: as above.
        unsafe { libc::munlock(from as *const libc::c_void, end - from) };
        (0..4).for_each(|_| neap::tick());
        split_for_good(&all);
    });
}

#[test]
fn where_small_pages_were_huge_pages_come_again() {
    // Since Linux 6.1. Older systems make huge pages only where no page was before.
    // SAFETY: no bytes.
    let possible = unsafe { libc::madvise(std::ptr::null_mut(), 0, MADV_COLLAPSE) == 0 };
    if !possible {
        return;
    }
    with_huge_pages("where_small_pages_were_huge_pages_come_again", || {
        let mut all = of_sizes(&[1000], 256 * MIB, &mut Random(9));
        let grown = huge();
        assert!(grown > 200 * MIB, "{grown} {}", neap::stats());
        // Every other slice, and then the rest.
        all.retain(|block| block.as_ptr() as usize >> 16 & 1 == 0);
        (0..3).for_each(|_| neap::tick());
        assert!(huge() < 32 * MIB, "{}", huge());
        drop(all);
        // The last one finds nothing to return.
        (0..4).for_each(|_| neap::tick());
        let all = of_sizes(&[1000], 256 * MIB, &mut Random(9));
        assert!(huge() > grown - grown / 8, "{} of {grown}", huge());
        drop(all);
    });
}

#[test]
fn no_huge_page_where_the_system_forbids_them() {
    if system_setting_is("never") != Some(true) {
        return;
    }
    child_succeeds("no_huge_page_where_the_system_forbids_them", &ON, || {
        let all = blocks(64 * MIB, &mut Random(12));
        assert_eq!(huge(), 0);
        drop(all);
    });
}

#[test]
fn huge_pages_that_the_system_does_not_give_are_not_counted() {
    child_succeeds("huge_pages_that_the_system_does_not_give_are_not_counted", &ON, || {
        // SAFETY: no pointers.
        if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } != 0 {
            return;
        }
        let before = neap::stats().resident;
        let few = of_sizes(&[1000], 3 * MIB, &mut Random(10));
        let more = neap::stats().resident - before;
        assert!(more < 4 * MIB, "{more} {}", neap::stats());
        drop(few);
    });
}

#[test]
fn no_huge_page_near_the_soft_limit() {
    if !on_offer() {
        return;
    }
    let limit = 64 * MIB;
    let settings = [ON[0], ("NEAP_LIMIT_BYTES", &limit.to_string())];
    child_succeeds("no_huge_page_near_the_soft_limit", &settings, || {
        let all = of_sizes(&[1000], 60 * MIB, &mut Random(11));
        // They come until it is near, above three quarters of it; of some a part is returned then.
        println!("{} KiB of huge pages above the start", huge() >> 10);
        assert!((8 * MIB..=32 * MIB).contains(&huge()), "{} {}", huge(), neap::stats());
        drop(all);
    });
}

/// How much more is resident after each of many threads has allocated a block of a class
/// that was not in use, all at the same time.
fn grown_by_threads(size: usize) -> usize {
    const THREADS: usize = 64;
    let barrier = &Barrier::new(THREADS + 1);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || {
                let first = black_box(vec![1u8; 8]);
                barrier.wait();
                barrier.wait();
                let second = black_box(vec![1u8; size]);
                barrier.wait();
                barrier.wait();
                drop((first, second));
            });
        }
        barrier.wait();
        let before = resident();
        barrier.wait();
        barrier.wait();
        let after = resident();
        barrier.wait();
        after.saturating_sub(before)
    })
}

#[test]
fn threads_do_not_each_make_a_huge_page() {
    with_huge_pages("threads_do_not_each_make_a_huge_page", || {
        let sizes = [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000];
        let most = sizes.into_iter().map(grown_by_threads).max().expect("a size");
        println!("{} KiB above the start", most >> 10);
        assert!(most < 12 * MIB, "{most} {}", neap::stats());
    });
}

#[test]
fn a_purge_leaves_nothing() {
    with_huge_pages("a_purge_leaves_nothing", || {
        let start = resident();
        drop(blocks(256 * MIB, &mut Random(5)));
        neap::purge();
        let left = resident().saturating_sub(start);
        println!("{} KiB above the start", left >> 10);
        assert!(left < 8 * MIB && huge() < 4 * MIB, "{left} {} {}", huge(), neap::stats());
    });
}
