//! The registry of all thread caches, so that a tick finds them. A thread joins at its
//! first allocation and leaves by the destructor of a pthread key. Caches are never
//! unmapped; one without a thread serves the next thread.

use crate::base::SINGLE_THREADED;
use crate::base::hook::Hook;
use crate::heap::live_map;
use crate::heap::metadata;
use crate::heap::span::NO_CACHE;
use crate::platform::{self, ExitKey, Lock};
use crate::thread_cache::cache::ThreadCache;
use crate::thread_cache::thread_local::{Phase, ThreadLocal, this_thread};
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicUsize};

/// A thread cache and its place in the list of all.
pub(crate) struct Member {
    pub(crate) cache: Lock<ThreadCache>,
    /// Whether a thread has it, or is about to get it. Changed under [`JOINING`].
    in_use: AtomicBool,
    /// The [`ThreadLocal::origin`] of its last thread. Changed under [`JOINING`].
    origin: AtomicU16,
    next: AtomicPtr<Member>,
}

static FIRST: AtomicPtr<Member> = AtomicPtr::new(ptr::null_mut());
/// Guards joining, leaving and the list's growth.
static JOINING: Lock<Joining> = Lock::new(Joining { key: None, free: 0, last_number: 0 });

struct Joining {
    key: Option<ExitKey>,
    /// How many members have no thread.
    free: usize,
    /// The number of the newest member; after 65,535 they start again from 1.
    last_number: u16,
}

/// How many members without a thread are searched for one with the same origin; each
/// costs a cache miss.
const CANDIDATES: usize = 8;

/// Threads that have a cache.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Every member, newest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Member> {
    core::iter::successors(first(), |member| member.next())
}

pub(crate) fn first() -> Option<&'static Member> {
    // Acquire pairs with the release in `create`.
    // SAFETY: members are published complete and never removed.
    unsafe { FIRST.load(Acquire).as_ref() }
}

impl Member {
    pub(crate) fn next(&self) -> Option<&'static Member> {
        // Relaxed: set before the member was published, and never changed.
        // SAFETY: as in `first`.
        unsafe { self.next.load(Relaxed).as_ref() }
    }
}

/// This thread's cache. None while the thread is just getting it, after it has left, and
/// without memory for one.
#[inline]
pub(crate) fn current() -> Option<&'static Member> {
    let thread = this_thread();
    match thread.phase() {
        // SAFETY: in this phase the cache is set, and caches are never unmapped.
        Phase::Cached => unsafe { thread.cache().cast::<Member>().as_ref() },
        Phase::New => join(thread).or_else(without_cache),
        Phase::Uncached => without_cache(),
    }
}

fn without_cache() -> Option<&'static Member> {
    enter();
    None
}

/// To be called before this thread changes spans without holding its own cache's lock.
/// Ends single-threaded mode, unless this is the first thread.
#[inline]
pub(crate) fn enter() {
    let cache = this_thread().cache();
    let first = !cache.is_null() && ptr::eq(cache, FIRST.load(Relaxed).cast());
    if !first && !SINGLE_THREADED.is_over() {
        end_single_threaded(&JOINING.lock());
    }
}

#[cold]
fn end_single_threaded(_joining: &Joining) {
    SINGLE_THREADED.end(|off| {
        for member in all() {
            let _cache = member.cache.lock();
            off();
        }
    });
}

/// The slow paths of all threads so far, if no cache has anything to age. By the locks
/// taken here, a thread that joins or goes through a slow path later sees what the
/// caller did before.
pub(crate) fn slow_paths_if_idle() -> Option<u64> {
    let _joining = JOINING.lock();
    all().try_fold(0, |sum, member| {
        let cache = member.cache.lock();
        cache.is_idle().then(|| sum + cache.slow_paths())
    })
}

pub(crate) fn threads() -> usize {
    // SeqCst: see `reclaim::background`, where the last thread is recognised.
    THREADS.load(SeqCst)
}

#[cold]
fn join(thread: &'static ThreadLocal) -> Option<&'static Member> {
    // What is allocated in here (by the C library, if its malloc is ours) comes straight
    // from the spans.
    thread.set_phase(Phase::Uncached);
    // The key's destructor will be called.
    let claimed = if platform::stay_loaded() { claim_member() } else { None };
    let Some((member, key)) = claimed else {
        thread.set_phase(Phase::New);
        return None;
    };
    if !key.set(ptr::from_ref(member).cast()) {
        free_member(member);
        thread.set_phase(Phase::New);
        return None;
    }
    member.cache.lock().attach_thread(thread);
    thread.set_cache(ptr::from_ref(member).cast_mut().cast());
    thread.set_phase(Phase::Cached);
    Some(member)
}

fn claim_member() -> Option<(&'static Member, ExitKey)> {
    let mut joining = JOINING.lock();
    let key = joining.key()?;
    let any_free = joining.free > 0;
    if first().is_some() {
        live_map::set_shared();
    }
    if !SINGLE_THREADED.is_over() {
        if first().is_none() { SINGLE_THREADED.begin() } else { end_single_threaded(&joining) }
    }
    let found = if any_free { find_member(this_thread().origin()) } else { None };
    let member = match found {
        Some(member) => {
            joining.free -= 1;
            member
        }
        None => create(&mut joining)?,
    };
    member.in_use.store(true, Relaxed);
    member.origin.store(this_thread().origin(), Relaxed);
    // SeqCst: see `threads`.
    THREADS.fetch_add(1, SeqCst);
    Some((member, key))
}

/// A member without a thread: of the first few, preferably one whose last thread had the
/// same origin. If one thread starts others in turn, each then finds the neighbours of the
/// blocks that its predecessor left, and those of another such thread stay separate.
fn find_member(origin: u16) -> Option<&'static Member> {
    let mut first = None;
    for member in all().filter(|member| !member.in_use.load(Relaxed)).take(CANDIDATES) {
        if member.origin.load(Relaxed) == origin {
            return Some(member);
        }
        first = first.or(Some(member));
    }
    first
}

fn free_member(member: &'static Member) {
    let mut joining = JOINING.lock();
    member.in_use.store(false, Relaxed);
    joining.free += 1;
    // SeqCst, as in the background thread before it waits: either it sees the new count,
    // or the last thread's call of `NEARLY_EMPTY` sees that it waits.
    THREADS.fetch_sub(1, SeqCst);
}

/// What to call when a thread has left and at most one other has a cache.
static NEARLY_EMPTY: Hook = Hook::new();

/// Sets what to call whenever a thread has left and at most one other has a cache.
pub(crate) fn when_nearly_empty(call: fn()) {
    NEARLY_EMPTY.set(call);
}

fn create(joining: &mut Joining) -> Option<&'static Member> {
    let member: NonNull<Member> = metadata::alloc(size_of::<Member>())?.cast();
    let next = AtomicPtr::new(FIRST.load(Relaxed));
    joining.last_number = joining.last_number.checked_add(1).unwrap_or(NO_CACHE + 1);
    let cache = Lock::new(ThreadCache::new(joining.last_number));
    let (in_use, origin) = (AtomicBool::new(true), AtomicU16::new(NO_CACHE));
    // SAFETY: the piece is ours and large enough.
    unsafe { member.write(Member { cache, in_use, origin, next }) };
    // Release pairs with the acquire in `first`.
    FIRST.store(member.as_ptr(), Release);
    // SAFETY: just written, never freed.
    Some(unsafe { member.as_ref() })
}

impl Joining {
    fn key(&mut self) -> Option<ExitKey> {
        if self.key.is_none() {
            self.key = ExitKey::new(on_thread_exit);
        }
        self.key
    }
}

/// The key's destructor, at a thread's end. Other destructors may run after it. What they
/// allocate and free goes straight to the spans, so that nothing is pooled that nobody
/// would free.
extern "C" fn on_thread_exit(member: *mut c_void) {
    let thread = this_thread();
    thread.set_phase(Phase::Uncached);
    thread.set_cache(ptr::null_mut());
    // SAFETY: the value that `join` set; members are never unmapped.
    let Some(member) = (unsafe { member.cast::<Member>().as_ref() }) else { return };
    member.cache.lock().exit_thread();
    free_member(member);
    if threads() <= 1 {
        NEARLY_EMPTY.run();
    }
}

/// Holds the registry's lock and that of every cache over a fork.
pub(crate) fn lock_for_fork() {
    core::mem::forget(JOINING.lock());
    for member in all() {
        core::mem::forget(member.cache.lock());
    }
}

/// # Safety
/// Only after [`lock_for_fork`], by the same thread or its copy in the child.
pub(crate) unsafe fn unlock_after_fork() {
    for member in all() {
        // SAFETY: locked by this thread.
        unsafe { member.cache.force_unlock() };
    }
    // SAFETY: as above.
    unsafe { JOINING.force_unlock() };
}

/// In a fork's child: empties the caches of threads that do not exist there. A block that
/// such a thread was just pushing or popping is lost.
pub(crate) fn detach_orphans() {
    let own = this_thread().cache().cast::<Member>();
    for member in all().filter(|member| !ptr::eq(*member, own) && member.in_use.load(Relaxed)) {
        member.cache.lock().empty_and_detach();
        free_member(member);
    }
}
