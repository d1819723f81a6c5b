//! Mappings, of blocks above 4 MiB, are kept when their block is freed. They serve
//! later blocks, never add to a peak, and go when an epoch had no use for them.

mod common;

use common::child_succeeds;
use neap::Neap;
use std::time::Duration;

// No tick but by hand.
#[global_allocator]
static HEAP: Neap = Neap::new().tick_interval(Duration::from_secs(3600)).huge_pages(false);

/// A kept mapping serves a smaller block. That may grow into it, or lose the tail.
#[test]
fn a_mapping_larger_than_its_block_is_cut_after_an_epoch() {
    child_succeeds("a_mapping_larger_than_its_block_is_cut_after_an_epoch", &[], || {
        let mapped = || neap::stats().mapped;
        let start = mapped();
        drop(vec![1u8; 30 << 20]);
        assert_eq!(mapped() - start, 30 << 20, "kept");
        let mut bytes = Vec::<u8>::with_capacity(6 << 20);
        bytes.push(7);
        assert_eq!(mapped() - start, 30 << 20, "used again");
        let place = bytes.as_ptr();
        bytes.reserve_exact(20 << 20);
        assert_eq!((bytes.as_ptr(), bytes[0]), (place, 7), "grown in place");
        neap::tick();
        assert_eq!(mapped() - start, 30 << 20, "its size is new in this epoch");
        neap::tick();
        assert!(mapped() - start < 21 << 20, "the tail is gone");
        assert_eq!(bytes[0], 7);
        drop(bytes);
        neap::purge();
        assert_eq!(mapped(), start);
    });
}

/// Together with what is in use, kept mappings are at most what was in use at once.
/// So they never add to a peak.
#[test]
fn kept_mappings_make_way_for_blocks_they_do_not_serve() {
    child_succeeds("kept_mappings_make_way_for_blocks_they_do_not_serve", &[], || {
        let start = neap::stats().mapped;
        let mapped = || (neap::stats().mapped - start) >> 20;
        drop((buffer(17), buffer(7), buffer(6)));
        assert_eq!(mapped(), 30, "all are kept, as many as were in use at once");
        neap::tick();
        let twenty = buffer(20);
        assert_eq!(mapped(), 20 + 6, "those that were free the longest made way");
        let six = buffer(6);
        assert_eq!(mapped(), 20 + 6, "the last one serves");
        drop((twenty, six));
        neap::tick();
        drop(buffer(21));
        assert_eq!(mapped(), 21, "what was in use at once two epochs ago counts no more");
        neap::purge();
        assert_eq!(mapped(), 0);

        let long = (buffer(20), buffer(10));
        (0..3).for_each(|_| neap::tick());
        drop(long);
        let six = buffer(6);
        assert_eq!(mapped(), 30, "what was in use all the time was in use in this epoch");
        drop(six);
        neap::purge();
        assert_eq!(mapped(), 0);
    });
}

/// So do the tails of mappings larger than their blocks.
#[test]
fn tails_of_mappings_make_way_too() {
    child_succeeds("tails_of_mappings_make_way_too", &[], || {
        let start = neap::stats().mapped;
        let mapped = || (neap::stats().mapped - start) >> 20;
        // Twice, so that the second time shows what the first one left in the counts.
        for _ in 0..2 {
            drop(buffer(30));
            let five = buffer(5);
            assert_eq!(mapped(), 30, "used again");
            drop(buffer(8));
            assert_eq!(mapped(), 30, "only as much of the tail goes as has to make way");
            let twenty = buffer(20);
            assert_eq!(mapped(), 30, "12 of the other 17 go, after the 8 kept");
            drop((five, twenty));
            assert_eq!(mapped(), 30, "both are kept, and one's tail");
            neap::purge();
            assert_eq!(mapped(), 0);
        }
    });
}

/// A block in a mapping of its own.
fn buffer(mib: usize) -> Vec<u8> {
    std::hint::black_box(Vec::with_capacity(mib << 20))
}
