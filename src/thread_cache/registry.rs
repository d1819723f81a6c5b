//! Every thread's cache, so that a background thread finds them: threads join at their
//! first allocation and leave by a pthread key's destructor. Caches are never
//! unmapped; those without a thread serve the next one.

use crate::base::SINGLE_THREADED;
use crate::base::hook::Hook;
use crate::heap::live_map;
use crate::heap::metadata;
use crate::heap::span::NO_CACHE;
use crate::platform::{ExitKey, Lock};
use crate::thread_cache::cache::ThreadCache;
use crate::thread_cache::thread_local::{Phase, ThreadLocal, this_thread};
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicUsize};

/// A cache and its place in the list of all.
pub(crate) struct Member {
    pub(crate) cache: Lock<ThreadCache>,
    /// Taken by a thread, or by one that is about to have it.
    used: AtomicBool,
    /// Where its last thread came from: [`ThreadLocal::origin`].
    origin: AtomicU16,
    next: AtomicPtr<Member>,
}

static FIRST: AtomicPtr<Member> = AtomicPtr::new(ptr::null_mut());
/// Guards joining, leaving and the list's growth.
static JOINING: Lock<Joining> = Lock::new(Joining { key: None, idle: 0, made: 0 });

struct Joining {
    key: Option<ExitKey>,
    /// Members without a thread.
    idle: usize,
    /// The number of the last member made; after 65,535 the first come again.
    made: u16,
}

/// Members without a thread that one which joins looks at; each is a line far away.
const CANDIDATES: usize = 8;

/// Threads that have a cache.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Every member, newest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Member> {
    core::iter::successors(first(), |member| member.next())
}

pub(crate) fn first() -> Option<&'static Member> {
    // SAFETY: members are published whole and never removed.
    unsafe { FIRST.load(Acquire).as_ref() }
}

impl Member {
    pub(crate) fn next(&self) -> Option<&'static Member> {
        // SAFETY: as in `first`.
        unsafe { self.next.load(Relaxed).as_ref() }
    }
}

/// This thread's cache; none while it gets it, after it has given it back, and
/// without memory for one.
#[inline]
pub(crate) fn current() -> Option<&'static Member> {
    let thread = this_thread();
    match thread.phase() {
        // SAFETY: an alive thread's cache is set, and never unmapped.
        Phase::Cached => unsafe { thread.cache().cast::<Member>().as_ref() },
        Phase::New => join(thread).or_else(without_cache),
        Phase::Uncached => without_cache(),
    }
}

fn without_cache() -> Option<&'static Member> {
    enter();
    None
}

/// Before this thread changes spans otherwise than behind its own cache's lock:
/// from here on, the process is not single-threaded any more.
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

/// Slow paths of all threads so far, if no cache has anything to age. Whoever
/// joins or comes through a slow path after the look, comes after what the
/// caller did before it.
pub(crate) fn slow_paths_if_idle() -> Option<u64> {
    let _joining = JOINING.lock();
    all().try_fold(0, |sum, member| {
        let cache = member.cache.lock();
        cache.is_idle().then(|| sum + cache.slow_paths())
    })
}

pub(crate) fn threads() -> usize {
    THREADS.load(SeqCst)
}

#[cold]
fn join(thread: &'static ThreadLocal) -> Option<&'static Member> {
    // What is allocated in here (by the C library, where its malloc is ours)
    // goes straight to the spans.
    thread.set_phase(Phase::Uncached);
    let Some((member, key)) = claim() else {
        thread.set_phase(Phase::New);
        return None;
    };
    if !key.set(ptr::from_ref(member).cast()) {
        release(member);
        thread.set_phase(Phase::New);
        return None;
    }
    member.cache.lock().adopt(thread);
    thread.set_cache(ptr::from_ref(member).cast_mut().cast());
    thread.set_phase(Phase::Cached);
    Some(member)
}

fn claim() -> Option<(&'static Member, ExitKey)> {
    let mut joining = JOINING.lock();
    let key = joining.key()?;
    let idle = joining.idle > 0;
    if first().is_some() {
        live_map::set_shared();
    }
    if !SINGLE_THREADED.is_over() {
        if first().is_none() { SINGLE_THREADED.begin() } else { end_single_threaded(&joining) }
    }
    let found = if idle { choose(this_thread().origin()) } else { None };
    let member = match found {
        Some(member) => {
            joining.idle -= 1;
            member
        }
        None => create(&mut joining)?,
    };
    member.used.store(true, Relaxed);
    member.origin.store(this_thread().origin(), Relaxed);
    // SeqCst: see where the background thread ends.
    THREADS.fetch_add(1, SeqCst);
    Some((member, key))
}

/// A member without a thread: of the first few, one whose last thread had the same
/// origin. A thread that goes on with what its parent's last one left then finds
/// the neighbours of those blocks, and two lines of such threads stay apart.
fn choose(origin: u16) -> Option<&'static Member> {
    let mut first = None;
    for member in all().filter(|member| !member.used.load(Relaxed)).take(CANDIDATES) {
        if member.origin.load(Relaxed) == origin {
            return Some(member);
        }
        first = first.or(Some(member));
    }
    first
}

fn release(member: &'static Member) {
    let mut joining = JOINING.lock();
    member.used.store(false, Relaxed);
    joining.idle += 1;
    // SeqCst, as what the background thread does before it rests: either it sees the
    // count, or the last thread's call below sees that it rests.
    THREADS.fetch_sub(1, SeqCst);
}

/// What to call when a thread has left and one or none is there.
static NEARLY_EMPTY: Hook = Hook::new();

/// Has `call` called whenever a thread that had a cache has left, and at most
/// one other has one.
pub(crate) fn when_nearly_empty(call: fn()) {
    NEARLY_EMPTY.set(call);
}

fn create(joining: &mut Joining) -> Option<&'static Member> {
    let member: NonNull<Member> = metadata::alloc(size_of::<Member>())?.cast();
    let next = AtomicPtr::new(FIRST.load(Relaxed));
    joining.made = joining.made.checked_add(1).unwrap_or(NO_CACHE + 1);
    let cache = Lock::new(ThreadCache::new(joining.made));
    let (used, origin) = (AtomicBool::new(true), AtomicU16::new(NO_CACHE));
    // SAFETY: the piece is ours and large enough.
    unsafe { member.write(Member { cache, used, origin, next }) };
    FIRST.store(member.as_ptr(), Release);
    // SAFETY: just written, never given back.
    Some(unsafe { member.as_ref() })
}

impl Joining {
    fn key(&mut self) -> Option<ExitKey> {
        if self.key.is_none() {
            self.key = ExitKey::new(leave);
        }
        self.key
    }
}

/// The key's destructor, at thread exit. Other destructors may run after it;
/// what they allocate and free goes straight to the spans, so nothing is kept
/// that a later destructor would have to give back.
extern "C" fn leave(member: *mut c_void) {
    let thread = this_thread();
    thread.set_phase(Phase::Uncached);
    thread.set_cache(ptr::null_mut());
    // SAFETY: the value that `join` set; members are never unmapped.
    let Some(member) = (unsafe { member.cast::<Member>().as_ref() }) else { return };
    member.cache.lock().leave();
    release(member);
    if threads() <= 1 {
        NEARLY_EMPTY.run();
    }
}

/// Holds the registry and every cache over a fork.
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

/// In a fork's child: the caches of threads that do not exist there give
/// everything back. What such a thread was just pushing or popping is lost.
pub(crate) fn abandon_orphans() {
    let own = this_thread().cache().cast::<Member>();
    for member in all().filter(|member| !ptr::eq(*member, own) && member.used.load(Relaxed)) {
        member.cache.lock().abandon();
        release(member);
    }
}
