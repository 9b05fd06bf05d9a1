//! Records of shared state.

use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::{Bucket, GroupId};
use steerage::wire::Malformed;
use steerage::wire::state::{
    Content, Fact, MAX_ITEM, MAX_KEY, MAX_RECORD, MAX_VALUE, Message, Name, PageWriter, Record,
};

fn facts() -> impl Strategy<Value = (u64, u32, bool, u8, Vec<u8>)> {
    (any::<u64>(), any::<u32>(), any::<bool>(), 0..3_u8, vec(any::<u8>(), 0..=MAX_VALUE))
}

fn fact((version, ticks, unsure, what, value): &(u64, u32, bool, u8, Vec<u8>)) -> Fact<'_> {
    let content = [Content::Value(value), Content::Deleted, Content::Absent][usize::from(*what)];
    Fact { version: *version, ticks: *ticks, unsure: *unsure, content }
}

fn record(message: Message<'_>) -> Record<'_> {
    Record { group: GroupId(63), bucket: Bucket(4095), epoch: 0xff_ffff, token: 0xdead_beef, message }
}

fn comes_back(message: Message<'_>) {
    let written = record(message);
    // What stands behind a record is the next one's.
    let mut bytes = [0xaa; MAX_RECORD + 3];
    let len = written.write(&mut bytes);
    assert!(len <= MAX_RECORD);
    let (read, rest) = Record::parse(&bytes[..len + 3]).unwrap();
    assert_eq!((read, rest), (written, &[0xaa; 3][..]));
    for short in 0..len {
        assert_eq!(Record::parse(&bytes[..short]), Err(Malformed::Truncated), "{short} of {len} bytes");
    }
}

proptest! {
    #[test]
    fn records_come_back(
        kind in any::<u8>(), key in vec(any::<u8>(), 0..=MAX_KEY), drawn in facts(), number in any::<u64>(),
        others in vec((any::<u8>(), vec(any::<u8>(), 0..=MAX_KEY), facts()), 0..12),
    ) {
        let (name, fact_of) = (Name { kind, key: &key }, fact(&drawn));
        for message in [
            Message::Put { name, fact: fact_of, stable: number }, Message::Stored, Message::Hunt(name), Message::Found(fact_of),
            Message::Pull { below: number }, Message::Learnt, Message::Outdated, Message::Full, Message::Delete { name, fact: fact_of },
            Message::Audit { last: number, digest: !number }, Message::Differs { last: number },
        ] {
            comes_back(message);
        }
        let mut page = PageWriter::default();
        let all: Vec<_> = others.iter().map(|(kind, key, drawn)| (Name { kind: *kind, key }, fact(drawn))).collect();
        let fit = all.iter().take_while(|(name, fact)| page.push(*name, fact)).count();
        prop_assert!(fit == all.len() || fit >= MAX_RECORD / MAX_ITEM - 1);
        prop_assert_eq!(page.items().collect::<Vec<_>>(), &all[..fit]);
        comes_back(Message::Page { next: number, stable: 7, items: page.items() });
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(mut bytes in vec(any::<u8>(), 0..200), cut in any::<bool>()) {
        if let (true, [high, low, ..]) = (cut, &mut bytes[..]) {
            (*high, *low) = (0, 40);
        }
        if let Ok((record, rest)) = Record::parse(&bytes) {
            let mut again = [0; MAX_RECORD];
            let len = record.write(&mut again);
            prop_assert_eq!(len + rest.len(), bytes.len());
            prop_assert_eq!(Record::parse(&again[..len]), Ok((record, &[][..])));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let bytes = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = [0; MAX_RECORD];
        let name = Name { kind: 1, key: b"key" };
        let fact = Fact { version: 1, ticks: 0, unsure: false, content: Content::Value(b"value") };
        let len = record(Message::Put { name, fact, stable: 0 }).write(&mut bytes);
        change(&mut bytes);
        Record::parse(&bytes[..len]).map(|_| ())
    };
    assert_eq!(bytes(&|_| ()), Ok(()));
    assert_eq!(bytes(&|b| b[0] = 9), Err(Malformed::Length), "longer than any");
    assert_eq!(bytes(&|b| b[1] = 3), Err(Malformed::Length), "shorter than its head");
    assert_eq!(bytes(&|b| b[1] -= 1), Err(Malformed::Truncated), "shorter than what is in it");
    assert_eq!(bytes(&|b| b[2] = 13), Err(Malformed::Value), "no such message");
    assert_eq!(bytes(&|b| b[6] = 16), Err(Malformed::Value), "no such bucket");
    assert_eq!(bytes(&|b| b[23] = 49), Err(Malformed::Length), "a key too long");
    assert_eq!(bytes(&|b| b[40] = 65), Err(Malformed::Length), "a value too long");
    assert_eq!(bytes(&|b| b[39] = 2), Err(Malformed::Value), "a value that was deleted");
    assert_eq!(bytes(&|b| b[40] = 4), Err(Malformed::Length), "bytes behind it");
}
