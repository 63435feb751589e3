//! Memory that is used again. New pages have to be cleared first, by the system and perhaps by what it is a guest of:
//! that takes longer than all that is written into them.

use std::sync::Mutex;

use crate::states::locked;

/// What has memory of its own.
pub trait Holding {
    /// So much of it.
    fn bytes(&self) -> usize;
}

impl<T> Holding for Vec<T> {
    fn bytes(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

/// What was let go of, the oldest first; at most so many bytes in all.
pub struct Pool<T> {
    free: Mutex<Vec<T>>,
    most: usize,
}

impl<T: Holding> Pool<T> {
    pub const fn new(most: usize) -> Self {
        Pool { free: Mutex::new(Vec::new()), most }
    }

    /// The smallest of those that hold so many bytes.
    pub fn take(&self, bytes: usize) -> Option<T> {
        let mut free = locked(&self.free);
        let fitting = free.iter().enumerate().filter(|(_, each)| each.bytes() >= bytes);
        let (place, _) = fitting.min_by_key(|(_, each)| each.bytes())?;
        Some(free.remove(place))
    }

    /// The one that was let go of last.
    pub fn last(&self) -> Option<T> {
        locked(&self.free).pop()
    }

    /// Keeps one. For it those go that were not taken for the longest time: nobody may want their sizes any more.
    pub fn give(&self, one: T) {
        if one.bytes() == 0 || one.bytes() > self.most {
            return;
        }
        let mut free = locked(&self.free);
        free.push(one);
        let mut held: usize = free.iter().map(Holding::bytes).sum();
        let mut count = 0;
        while held > self.most {
            held -= free[count].bytes();
            count += 1;
        }
        let gone: Vec<T> = free.drain(..count).collect();
        drop(free);
        drop(gone); // which takes a while
    }
}
