//! What the C and C++ standards require, exactly.

use super::{Case, End, errno, set_errno};
use libc::{EINVAL, ENOMEM, c_int, c_void};
use libc::{calloc, free, malloc, malloc_usable_size, memalign, posix_memalign, realloc, reallocarray};
use std::hint::black_box;
use std::ptr;

const fn well(name: &'static str, run: fn()) -> Case {
    Case { name, run, end: End::Well }
}

/// All of them.
pub const ALL: &[Case] = &[
    well("every block is aligned to 16 bytes", alignment),
    well("usable to the last byte", usable),
    well("sizes beyond PTRDIFF_MAX", too_large),
    well("calloc: zeros, and overflow", zeros),
    well("realloc", reallocation),
    well("realloc keeps the content", content),
    well("realloc: what grows above 256 KiB gets a mapping of its own", mapped),
    well("reallocarray", array),
    well("blocks of many sizes share no few lines of caches", spread),
    well("posix_memalign", posix),
    well("aligned_alloc, memalign", aligned),
    well("valloc, pvalloc", pages),
    well("free leaves errno alone", quiet),
    well("free_sized, free_aligned_sized", sized),
    well("malloc_trim, mallinfo2, mallopt", whole_heap),
    well("C++ operators", operators),
    well("C++ new-handler", handler),
];

unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn valloc(size: usize) -> *mut c_void;
    fn pvalloc(size: usize) -> *mut c_void;
    fn malloc_trim(pad: usize) -> c_int;
    fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

const SIZES: [usize; 16] =
    [0, 1, 7, 8, 9, 24, 40, 72, 100, 1025, 5000, 32_769, 100_000, 300_000, 2 << 20, 9 << 20];

/// The mapping that an address lies in.
fn mapping(address: *mut c_void) -> std::ops::Range<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    };
    let found = maps.lines().filter_map(range).find(|range| range.contains(&(address as usize)));
    found.expect("a mapping")
}

fn mapped() {
    // SAFETY: each block is freed once, and written where it has bytes.
    unsafe {
        let other = malloc(300 << 10);
        // Looked up again: the kernel joins neighbouring mappings.
        let heap = mapping(other);
        let mut block = malloc(200 << 10);
        block.cast::<u8>().write_bytes(7, 200 << 10);
        for size in (300..8000).step_by(100) {
            block = realloc(block, black_box(size << 10));
            assert!(!block.is_null());
            assert!(!heap.contains(&(block as usize)), "{size} KiB");
            assert!((0..200 << 10).step_by(999).all(|at| *block.cast::<u8>().add(at) == 7));
        }
        // Smaller again, down to below the pooled sizes.
        for size in [5000, 300, 100] {
            block = realloc(block, black_box(size << 10));
            assert!((0..100 << 10).step_by(999).all(|at| *block.cast::<u8>().add(at) == 7));
        }
        free(block);
        free(other);
    }
}

fn spread() {
    let lines: std::collections::HashSet<usize> = (1..=64)
        .map(|sixteenths| {
            // SAFETY: freed at once.
            unsafe {
                let block = malloc(black_box(sixteenths * 16));
                free(block);
                block as usize / 64 % 64
            }
        })
        .collect();
    // A page has 64 cache lines, and there are fewer classes than sizes.
    assert!(lines.len() > 15, "{} lines", lines.len());
}

fn alignment() {
    for size in 0..5000 {
        // SAFETY: no contract; freed once.
        unsafe {
            let block = malloc(black_box(size));
            assert!(!block.is_null() && (block as usize).is_multiple_of(16), "size {size}");
            free(block);
        }
    }
}

fn usable() {
    let mut blocks = Vec::new();
    for round in 0..50u8 {
        for size in SIZES.into_iter().filter(|&size| size < 2 << 20 || round < 3) {
            // SAFETY: what is usable can be written.
            unsafe {
                let block = malloc(size).cast::<u8>();
                let usable = malloc_usable_size(block.cast());
                assert!(usable >= size);
                block.write_bytes(round, usable);
                blocks.push((block, usable, round));
            }
        }
    }
    for (block, usable, round) in blocks {
        // SAFETY: written above.
        unsafe {
            let bytes = std::slice::from_raw_parts(block, usable);
            assert!(bytes.iter().all(|&byte| byte == round), "two blocks share bytes");
            free(block.cast());
        }
    }
    // SAFETY: null is allowed.
    assert_eq!(unsafe { malloc_usable_size(ptr::null_mut()) }, 0);
}

/// The call must return null and set errno.
fn fails(reason: c_int, call: impl FnOnce() -> *mut c_void) {
    set_errno(0);
    assert!(black_box(call()).is_null());
    assert_eq!(errno(), reason);
}

fn too_large() {
    let most = isize::MAX as usize;
    for size in [most + 1, most, usize::MAX, usize::MAX - 15, usize::MAX - 4096, 1 << 50] {
        // SAFETY: no contract.
        unsafe {
            fails(ENOMEM, || malloc(black_box(size)));
            fails(ENOMEM, || calloc(1, black_box(size)));
            fails(ENOMEM, || aligned_alloc(4096, black_box(size)));
            fails(ENOMEM, || memalign(64, black_box(size)));
            fails(ENOMEM, || valloc(black_box(size)));
            fails(ENOMEM, || pvalloc(black_box(size)));
            let block = malloc(100);
            fails(ENOMEM, || realloc(block, black_box(size)));
            // Unchanged.
            free(block);
        }
    }
    // SAFETY: no contract.
    fails(ENOMEM, || unsafe { aligned_alloc(1 << 62, 100) });
}

fn zeros() {
    // SAFETY: no contract.
    unsafe {
        fails(ENOMEM, || calloc(black_box(usize::MAX / 2), 3));
        fails(ENOMEM, || calloc(black_box(1 << 32), 1 << 32));
        for _ in 0..3 {
            for size in SIZES {
                let block = calloc(size.div_ceil(3), 3).cast::<u8>();
                let bytes = std::slice::from_raw_parts_mut(block, size);
                assert!(bytes.iter().all(|&byte| byte == 0));
                bytes.fill(0xff);
                free(block.cast());
            }
        }
        let empty = calloc(0, 10);
        assert!(!empty.is_null());
        free(empty);
    }
}

fn reallocation() {
    // SAFETY: C's contract is kept.
    unsafe {
        let block = realloc(ptr::null_mut(), 10);
        assert!(!block.is_null());
        // As in the C library: it frees, returns null, and sets no error.
        set_errno(0);
        assert!(black_box(realloc(black_box(block), 0)).is_null());
        assert_eq!(errno(), 0);
        let empty = realloc(ptr::null_mut(), 0);
        assert!(!empty.is_null());
        free(empty);
    }
}

fn content() {
    // SAFETY: C's contract is kept.
    unsafe {
        for from in SIZES {
            for to in SIZES.into_iter().filter(|&to| to > 0) {
                let block = malloc(from).cast::<u8>();
                (0..from).step_by(61).for_each(|at| block.add(at).write(at as u8));
                let block = realloc(block.cast(), to).cast::<u8>();
                assert!(malloc_usable_size(block.cast()) >= to);
                block.add(to - 1).write(block.add(to - 1).read());
                let same = (0..from.min(to)).step_by(61).all(|at| block.add(at).read() == at as u8);
                assert!(same, "{from} to {to}");
                free(block.cast());
            }
        }
    }
}

fn array() {
    // SAFETY: C's contract is kept.
    unsafe {
        let block = malloc(10);
        fails(ENOMEM, || reallocarray(block, black_box(1 << 33), 1 << 33));
        let block = reallocarray(block, 100, 10);
        assert!(malloc_usable_size(block) >= 1000);
        assert!(black_box(reallocarray(black_box(block), 0, 10)).is_null());
    }
}

fn posix() {
    // SAFETY: C's contract is kept.
    unsafe {
        for align in [0, 1, 2, 4, 3, 12, 24, 48] {
            let mut out = ptr::dangling_mut::<c_void>();
            set_errno(7);
            assert_eq!(posix_memalign(&mut out, align, 10), EINVAL, "{align}");
            assert_eq!((out, errno()), (ptr::dangling_mut(), 7));
        }
        let mut out = ptr::dangling_mut::<c_void>();
        set_errno(7);
        assert_eq!(posix_memalign(&mut out, 64, isize::MAX as usize), ENOMEM);
        assert_eq!((out, errno()), (ptr::dangling_mut(), 7));
        for shift in 3..26 {
            for size in [0, 1, 100, 5000, 70_000, 500_000, 5 << 20] {
                let mut out = ptr::null_mut::<c_void>();
                assert_eq!(posix_memalign(&mut out, 1 << shift, size), 0);
                assert!((out as usize).is_multiple_of(1 << shift) && !out.is_null());
                assert!(malloc_usable_size(out) >= size);
                out.cast::<u8>().write_bytes(1, size);
                free(out);
            }
        }
    }
}

fn aligned() {
    // SAFETY: C's contract is kept.
    unsafe {
        fails(EINVAL, || aligned_alloc(black_box(3), 9));
        fails(EINVAL, || aligned_alloc(black_box(0), 9));
        // C17: any size.
        let block = aligned_alloc(64, 65);
        assert!((block as usize).is_multiple_of(64));
        // An aligned block can be reallocated.
        let block = realloc(block, 10_000);
        free(block);
        // As in the C library: rounded up to a power of two.
        let block = memalign(48, 10);
        assert!((block as usize).is_multiple_of(64));
        free(block);
        fails(EINVAL, || memalign(usize::MAX, 10));
    }
}

fn pages() {
    // SAFETY: C's contract is kept.
    unsafe {
        for size in [0, 1, 4096, 4097, 100_000] {
            let block = valloc(size);
            assert!((block as usize).is_multiple_of(4096) && malloc_usable_size(block) >= size);
            free(block);
            let block = pvalloc(size);
            let usable = malloc_usable_size(block);
            // At least a page, even for size 0.
            assert!((block as usize).is_multiple_of(4096) && usable >= size.max(1).next_multiple_of(4096));
            free(block);
        }
    }
}

fn quiet() {
    let kinds = |index: usize| if index.is_multiple_of(500) { SIZES.len() } else { 12 };
    // SAFETY: no contract.
    let blocks: Vec<_> = (0..20_000).map(|index| unsafe { malloc(SIZES[index % kinds(index)]) }).collect();
    for block in blocks {
        set_errno(77);
        // SAFETY: from malloc, once.
        unsafe { free(block) };
        assert_eq!(errno(), 77);
    }
}

fn sized() {
    // SAFETY: C23's contract is kept.
    unsafe {
        let free_sized: unsafe extern "C" fn(*mut c_void, usize) =
            std::mem::transmute(libc::dlsym(libc::RTLD_DEFAULT, c"free_sized".as_ptr()));
        let free_aligned_sized: unsafe extern "C" fn(*mut c_void, usize, usize) =
            std::mem::transmute(libc::dlsym(libc::RTLD_DEFAULT, c"free_aligned_sized".as_ptr()));
        free_sized(ptr::null_mut(), 10);
        for size in SIZES {
            free_sized(malloc(size), size);
            free_sized(calloc(size, 1), size);
            free_sized(realloc(malloc(size * 2), size.max(1)), size.max(1));
            free_sized(realloc(malloc(size / 2), size.max(1)), size.max(1));
            for align in [16, 64, 4096, 1 << 20] {
                free_aligned_sized(aligned_alloc(align, size), align, size);
            }
        }
    }
}

fn whole_heap() {
    // SAFETY: C's contract is kept.
    unsafe {
        let before = libc::mallinfo2().uordblks;
        let blocks: Vec<_> = (0..5000).map(|_| malloc(3000)).collect();
        blocks.iter().for_each(|block| block.cast::<u8>().write_bytes(1, 3000));
        let during = libc::mallinfo2();
        assert!(during.uordblks >= before + 5000 * 3000 && during.arena >= during.uordblks);
        blocks.into_iter().for_each(|block| free(block));
        assert_eq!(malloc_trim(0), 1);
        let after = libc::mallinfo2();
        assert!(after.uordblks < before + (1 << 20) && after.arena + 5000 * 2900 < during.arena);
        assert_eq!(mallopt(-101, 0), 1);
        assert_eq!(mallopt(12_345, 0), 0);
    }
}

/// A C++ operator, from the library that is preloaded.
fn operator(name: &str) -> *mut c_void {
    let name = std::ffi::CString::new(name).expect("no null");
    // SAFETY: a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    assert!(!found.is_null(), "{name:?}");
    found
}

fn operators() {
    type Plain = unsafe extern "C" fn(usize) -> *mut c_void;
    type Two = unsafe extern "C" fn(usize, usize) -> *mut c_void;
    type Three = unsafe extern "C" fn(usize, usize, usize) -> *mut c_void;
    // SAFETY: each is called by its type; arguments that a form does not have are ignored.
    unsafe {
        for kind in ["w", "a"] {
            let delete = if kind == "w" { "_ZdlPv" } else { "_ZdaPv" };
            let deletes = [
                "",
                "m",
                "RKSt9nothrow_t",
                "St11align_val_t",
                "mSt11align_val_t",
                "St11align_val_tRKSt9nothrow_t",
            ];
            for end in deletes {
                let delete: unsafe extern "C" fn(*mut c_void, usize, usize) =
                    std::mem::transmute(operator(&format!("{delete}{end}")));
                let new: Plain = std::mem::transmute(operator(&format!("_Zn{kind}m")));
                delete(new(64), 64, 64);
                let new: Two = std::mem::transmute(operator(&format!("_Zn{kind}mRKSt9nothrow_t")));
                delete(new(64, 0), 64, 64);
                assert!(new(usize::MAX, 0).is_null());
                let new: Two = std::mem::transmute(operator(&format!("_Zn{kind}mSt11align_val_t")));
                let block = new(64, 256);
                assert!((block as usize).is_multiple_of(256));
                delete(block, 64, 64);
                let new: Three =
                    std::mem::transmute(operator(&format!("_Zn{kind}mSt11align_val_tRKSt9nothrow_t")));
                delete(new(64, 256, 0), 64, 64);
                assert!(new(usize::MAX, 256, 0).is_null());
            }
        }
    }
}

/// The new-handler is called, again and again, until it gives up.
fn handler() {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handle() {
        if CALLS.fetch_add(1, Relaxed) == 2 {
            std::process::exit(0);
        }
    }
    // SAFETY: functions of the C++ library by their types.
    unsafe {
        libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        let set: unsafe extern "C" fn(extern "C" fn()) =
            std::mem::transmute(operator("_ZSt15set_new_handlerPFvvE"));
        set(handle);
        let new: unsafe extern "C" fn(usize) -> *mut c_void = std::mem::transmute(operator("_Znwm"));
        new(isize::MAX as usize);
    }
    panic!("operator new came back");
}
