//! The guard of an object that is out of a pool.

use super::pool::Pool;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};

/// An object out of a [`Pool`], put back when dropped: into the local tier of the thread that
/// drops it, after the pool's reset. Dereferences to the object.
///
/// ```
/// let pool = neap::Pool::new(String::new);
/// let guard: neap::PoolGuard<'_, String, _> = pool.get();
/// drop(guard);
/// assert_eq!(pool.len(neap::Tier::Local), 1);
/// ```
pub struct PoolGuard<'a, T: Send + 'static, F> {
    object: ManuallyDrop<T>,
    pool: &'a Pool<T, F>,
}

impl<T: Send + 'static, F: Fn() -> T> Pool<T, F> {
    /// An object of the pool, or a new one; the guard puts it back when dropped.
    /// ```
    /// let pool = neap::Pool::new(Vec::new);
    /// pool.get().push(1); // the guard ends here
    /// assert_eq!(*pool.get(), [1]);
    /// ```
    #[inline]
    pub fn get(&self) -> PoolGuard<'_, T, F> {
        PoolGuard { object: ManuallyDrop::new(self.take()), pool: self }
    }
}

impl<T: Send + 'static, F> Pool<T, F> {
    /// An object of the pool, if it has one: the function given to [`new`](Pool::new) is not called.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// assert!(pool.try_get().is_none());
    /// pool.put(8);
    /// assert_eq!(pool.try_get().as_deref(), Some(&8));
    /// ```
    #[inline]
    pub fn try_get(&self) -> Option<PoolGuard<'_, T, F>> {
        let object = ManuallyDrop::new(self.try_take()?);
        Some(PoolGuard { object, pool: self })
    }
}

impl<T: Send + 'static, F> PoolGuard<'_, T, F> {
    /// Keeps the object: it does not go back, and is not reset.
    /// ```
    /// let pool = neap::Pool::new(|| 7);
    /// assert_eq!(pool.get().into_inner(), 7);
    /// assert!(pool.is_empty());
    /// ```
    pub fn into_inner(self) -> T {
        let mut guard = ManuallyDrop::new(self);
        // SAFETY: the guard is not dropped, so the object is taken once.
        unsafe { ManuallyDrop::take(&mut guard.object) }
    }
}

impl<T: Send + 'static, F> Drop for PoolGuard<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard's end; the object is not used after it.
        self.pool.put(unsafe { ManuallyDrop::take(&mut self.object) });
    }
}

impl<T: Send + 'static, F> Deref for PoolGuard<'_, T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T: Send + 'static, F> DerefMut for PoolGuard<'_, T, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.object
    }
}

impl<T: Send + 'static + fmt::Debug, F> fmt::Debug for PoolGuard<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
