//! The customers that a group of events has to do with.
//!
//! Of most a group sees one event or two, and it may have a hundred thousand of them: so only those that came last are
//! kept as profiles, in a few rooms that stay in the processor's cache. Of the others there is the state record that
//! will be written, one after another in one piece of memory. Large profiles are dear to read again: many are kept.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::message::{Counted, Sent};
use crate::plan::Plan;
use crate::profile::{Positions, Profile};
use crate::segment::Forecast;
use crate::state::{decode, decode_shown, encode};
use crate::states::Number;
use crate::Unsure;

/// So many rooms there are at most, with those of large profiles.
const MANY: usize = 4_096;
/// Of memory for states, and of that for changes, what is kept for the next group in any case, in bytes.
const KEPT: usize = 1 << 20;
/// By such a part of it a record may grow where it is.
const SPARE: usize = 8;
/// No room, or nobody in it.
const NONE: usize = usize::MAX;

/// Worth and segments of a customer.
pub type Counting = (i64, Vec<u8>);

/// What was published of one customer in this group.
#[derive(Default)]
pub struct Published {
    pub outbox: Vec<Sent>,
    pub moves: Vec<Counted>,
    pub ahead: Vec<Forecast>,
    pub caused: Option<i64>,
    pub size: usize,
}

pub struct Slot {
    pub number: Number,
    pub key: Vec<u8>,
    pub dirty: bool,
    /// Taken over by Python, or never more than an attempt.
    pub void: bool,
    /// What the census has, of a customer whose state Python keeps.
    pub counted: Option<Counting>,
    pub told: Option<Box<Published>>,
    room: usize,
    /// Where its record is, if it has no room.
    record: Range<usize>,
    /// So much room there is for it.
    space: usize,
    /// Of the record, where an outbox goes.
    head: usize,
}

struct Room {
    place: usize,
    profile: Profile,
}

pub struct Group {
    pub slots: Vec<Slot>,
    /// Slots by the ids of their customers: all that a group has to do with are found in a small place.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Those that are given in turn, and behind them those of large profiles.
    rooms: Vec<Room>,
    /// So many are given in turn.
    most: usize,
    /// Of so many numbers a profile is not large yet.
    small: usize,
    /// The room that is given next.
    next: usize,
    records: Vec<u8>,
    /// The last of them.
    written: Vec<u8>,
    /// Bodies of what was published, one after another.
    pub bodies: Vec<u8>,
}

impl Group {
    pub fn new(rooms: usize, small: usize) -> Self {
        Group {
            slots: vec![],
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            rooms: vec![],
            most: rooms.max(1),
            small,
            next: 0,
            records: vec![],
            written: vec![],
            bodies: vec![],
        }
    }

    /// Where a customer is, if the group has to do with it.
    pub fn get(&self, key: &[u8]) -> Option<usize> {
        let found = self.places.find(self.hasher.hash_one(key), |&place| self.slots[place as usize].key == key);
        found.map(|&place| place as usize)
    }

    /// A free profile, of whomever; it stays free until the next `place`.
    pub fn room(&mut self, plan: &Plan, epoch: u32) -> &mut Profile {
        if self.next == self.rooms.len() {
            self.rooms.push(Room { place: NONE, profile: Profile::default() });
        }
        if self.rooms[self.next].place != NONE {
            if self.rooms.len() < MANY && self.rooms[self.next].profile.numbers() > self.small {
                self.set_aside();
            } else {
                self.clear_out(plan, epoch);
            }
        }
        &mut self.rooms[self.next].profile
    }

    /// Has a fresh room given in place of one, which is kept.
    fn set_aside(&mut self) {
        let kept = self.rooms.len();
        self.rooms.push(Room { place: NONE, profile: Profile::default() });
        self.rooms.swap(self.next, kept);
        self.slots[self.rooms[kept].place].room = kept;
    }

    /// Writes the record of who has the next room: over the one before, if it fits there.
    fn clear_out(&mut self, plan: &Plan, epoch: u32) {
        let Group { rooms, slots, records, written, next, .. } = self;
        let room = &mut rooms[*next];
        let slot = &mut slots[room.place];
        written.clear();
        slot.head = encode(plan, &room.profile, epoch, written);
        let length = written.len();
        if length > slot.space {
            slot.space = length + length / SPARE;
            slot.record.start = records.len();
            records.resize(records.len() + slot.space, 0);
        }
        slot.record.end = slot.record.start + length;
        records[slot.record.clone()].copy_from_slice(written);
        slot.room = NONE;
        room.place = NONE;
    }

    fn move_in(&mut self, place: usize) {
        self.slots[place].room = self.next;
        self.rooms[self.next].place = place;
        self.next = (self.next + 1) % self.most;
    }

    /// Takes a customer in, whose profile is what the last `room` gave.
    pub fn place(&mut self, number: Number, key: &[u8], counted: Option<Counting>) -> usize {
        let place = self.slots.len();
        self.slots.push(Slot {
            number,
            key: key.to_vec(),
            dirty: false,
            void: false,
            counted,
            told: None,
            room: NONE,
            record: 0..0,
            space: 0,
            head: 0,
        });
        let hash = |place: u32| self.hasher.hash_one(&self.slots[place as usize].key[..]);
        self.places.insert_unique(hash(place as u32), place as u32, |&place| hash(place));
        self.move_in(place);
        place
    }

    /// Makes sure that a customer has a profile, until the next `room`.
    pub fn heat(&mut self, place: usize, plan: &Plan, epoch: u32, positions: &mut Positions) -> Result<(), Unsure> {
        if self.slots[place].room != NONE {
            return Ok(());
        }
        self.room(plan, epoch);
        let record = &self.records[self.slots[place].record.clone()];
        decode(plan, record, &mut self.rooms[self.next].profile, positions)?;
        self.move_in(place);
        Ok(())
    }

    /// The profile of a customer that has one.
    pub fn profile(&self, place: usize) -> &Profile {
        &self.rooms[self.slots[place].room].profile
    }

    /// The same, to be changed, with all else that is known of the customer.
    pub fn both(&mut self, place: usize) -> (&mut Slot, &mut Profile) {
        let (slot, profile, _) = self.telling(place);
        (slot, profile)
    }

    /// … and the bodies of what was published, for more of them.
    pub fn telling(&mut self, place: usize) -> (&mut Slot, &mut Profile, &mut Vec<u8>) {
        let slot = &mut self.slots[place];
        let profile = &mut self.rooms[slot.room].profile;
        (slot, profile, &mut self.bodies)
    }

    /// What is shown of a customer, by way of `spare` if it has no profile.
    pub fn shown<'a>(
        &'a self,
        place: usize,
        plan: &Plan,
        positions: &mut Positions,
        spare: &'a mut Profile,
    ) -> Result<&'a Profile, Unsure> {
        let slot = &self.slots[place];
        if let Some(room) = self.rooms.get(slot.room) {
            return Ok(&room.profile);
        }
        decode_shown(plan, &self.records[slot.record.clone()], spare, positions)?;
        Ok(spare)
    }

    /// A customer's state record, by way of `data`, and where in it an outbox goes.
    pub fn record<'a>(&'a self, place: usize, plan: &Plan, epoch: u32, data: &'a mut Vec<u8>) -> (&'a [u8], usize) {
        let slot = &self.slots[place];
        match self.rooms.get(slot.room) {
            None => (&self.records[slot.record.clone()], slot.head),
            Some(room) => {
                data.clear();
                let head = encode(plan, &room.profile, epoch, data);
                (data, head)
            }
        }
    }

    /// Has nothing more to do with a customer, whose slot stays, void.
    pub fn forget(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let hash = self.hasher.hash_one(&slot.key[..]);
        if let Ok(found) = self.places.find_entry(hash, |&other| other as usize == place) {
            found.remove();
        }
        if let Some(room) = self.rooms.get_mut(slot.room) {
            room.place = NONE;
        }
        (slot.void, slot.room) = (true, NONE);
    }

    /// Begins the next group.
    pub fn renew(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.rooms.truncate(self.most);
        self.rooms.iter_mut().for_each(|room| room.place = NONE);
        [&mut self.records, &mut self.bodies].into_iter().for_each(empty);
    }
}

/// Empties it; of its memory it keeps twice what was needed, at most.
fn empty(bytes: &mut Vec<u8>) {
    let needed = bytes.len().max(KEPT);
    bytes.clear();
    if bytes.capacity() > 2 * needed {
        bytes.shrink_to(needed);
    }
}
