//! Cache points: where they may stand, how many, in which order of lifetimes.

use serde_json::value::RawValue;

use crate::adapter::bedrock::models::Caching;
use crate::adapter::json;

/// The most that a request may have; any more are refused.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html>.
const MAX_POINTS: usize = 4;

const FIVE_MINUTES: &[u8] = br#",{"cachePoint":{"type":"default"}}"#;
const ONE_HOUR: &[u8] = br#",{"cachePoint":{"type":"default","ttl":"1h"}}"#;

/// How long a cache lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ttl {
    FiveMinutes,
    OneHour,
}

impl Ttl {
    /// What a `cache_control` asks for.
    pub(super) fn of(cache_control: Option<&RawValue>) -> Option<Self> {
        let [ttl] = json::pick(cache_control?.get(), ["ttl"]).ok()?;
        let is_long = ttl.is_some_and(|ttl| ttl.get() == r#""1h""#);
        Some(if is_long {
            Self::OneHour
        } else {
            Self::FiveMinutes
        })
    }
}

/// The part of a request that a point stands in, in the order in which a prompt is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Tools,
    System,
    Messages,
}

/// The points of a request.
#[derive(Debug)]
pub(super) struct CachePoints {
    caching: Caching,
    points: Vec<Point>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    section: Section,
    at: usize,
    ttl: Ttl,
}

impl Point {
    fn json(self) -> &'static [u8] {
        match self.ttl {
            Ttl::FiveMinutes => FIVE_MINUTES,
            Ttl::OneHour => ONE_HOUR,
        }
    }
}

impl CachePoints {
    pub(super) fn new(caching: Caching) -> Self {
        Self {
            caching,
            points: Vec::new(),
        }
    }

    /// Writes a point at `at`, which is behind every other point written so far; whether there is one now.
    fn put(&mut self, out: &mut Vec<u8>, section: Section, at: usize, ttl: Ttl) -> bool {
        let taken = match self.caching {
            Caching::No => return false,
            Caching::NotInTools if section == Section::Tools => return false,
            Caching::NotInTools | Caching::FiveMinutes => Ttl::FiveMinutes,
            Caching::OneHour => ttl,
        };
        let point = Point {
            section,
            at,
            ttl: taken,
        };
        out.splice(at..at, point.json().iter().copied());
        self.points.push(point);
        true
    }

    /// Takes back what is too much, the earliest first, for a later point covers what an earlier one does; and shortens the lives
    /// of those that outlive one before them.
    pub(super) fn settle(mut self, out: &mut Vec<u8>) {
        self.points.sort_by_key(|point| (point.section, point.at));
        let surplus = self.points.len().saturating_sub(MAX_POINTS);
        let mut changes: Vec<(Point, &[u8])> = Vec::new();
        let mut is_short = false;
        for (at, point) in self.points.iter().enumerate() {
            if at < surplus {
                changes.push((*point, b""));
            } else if is_short && point.ttl == Ttl::OneHour {
                changes.push((*point, FIVE_MINUTES));
            } else {
                is_short |= point.ttl == Ttl::FiveMinutes;
            }
        }
        changes.sort_by_key(|(point, _)| std::cmp::Reverse(point.at));
        for (point, instead) in changes {
            out.splice(
                point.at..point.at + point.json().len(),
                instead.iter().copied(),
            );
        }
    }
}

/// What stands last in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Block,
    Point,
    /// A block that no point may follow.
    Barrier,
}

/// A list that is being written, which may hold cache points. A point that may not stand where it was asked for comes behind the
/// next block, or else before the blocks that it may not follow.
#[derive(Debug)]
pub(super) struct List {
    section: Section,
    last: Last,
    waiting: Option<Ttl>,
    /// Where a point could stand before the barriers at the end.
    before: Option<usize>,
}

impl List {
    pub(super) fn new(section: Section) -> Self {
        Self {
            section,
            last: Last::Nothing,
            waiting: None,
            before: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last == Last::Nothing
    }

    /// To be called before an item is written.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        if self.last != Last::Barrier {
            self.before = (self.last == Last::Block).then_some(out.len());
        }
        if !self.is_empty() {
            out.push(b',');
        }
    }

    /// To be called when an item has been written that asks for a point, or not.
    pub(super) fn end(&mut self, points: &mut CachePoints, out: &mut Vec<u8>, asked: Option<Ttl>) {
        self.last = Last::Block;
        let wanted = asked.max(self.waiting.take());
        self.mark(points, out, wanted);
    }

    /// The same for an item that no point may follow: thinking, a document.
    pub(super) fn end_barrier(&mut self, asked: Option<Ttl>) {
        self.last = Last::Barrier;
        self.waiting = self.waiting.max(asked);
    }

    /// Puts a point behind the last item, where one may stand.
    pub(super) fn mark(&mut self, points: &mut CachePoints, out: &mut Vec<u8>, asked: Option<Ttl>) {
        match (self.last, asked) {
            (Last::Block, Some(ttl)) => {
                let at = out.len();
                if points.put(out, self.section, at, ttl) {
                    self.last = Last::Point;
                }
            }
            (Last::Barrier, Some(ttl)) => self.waiting = self.waiting.max(Some(ttl)),
            _ => {}
        }
    }

    /// To be called when the list is complete.
    pub(super) fn finish(self, points: &mut CachePoints, out: &mut Vec<u8>) {
        if let (Some(ttl), Some(at)) = (self.waiting, self.before) {
            points.put(out, self.section, at, ttl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes items: `b` a block, `d` a barrier, in capitals with a five minute marker, `1` a block with an hour's.
    fn written(caching: Caching, sections: &[(Section, &str)]) -> String {
        let mut out = Vec::new();
        let mut points = CachePoints::new(caching);
        for (section, items) in sections {
            let mut list = List::new(*section);
            out.push(b'[');
            for item in items.chars() {
                list.begin(&mut out);
                out.push(u8::try_from(item.to_ascii_lowercase()).unwrap());
                let asked = match item {
                    '1' => Some(Ttl::OneHour),
                    _ => item.is_ascii_uppercase().then_some(Ttl::FiveMinutes),
                };
                if item.eq_ignore_ascii_case(&'d') {
                    list.end_barrier(asked);
                } else {
                    list.end(&mut points, &mut out, asked);
                }
            }
            list.finish(&mut points, &mut out);
            out.push(b']');
        }
        points.settle(&mut out);
        String::from_utf8(out)
            .unwrap()
            .replace(r#"{"cachePoint":{"type":"default"}}"#, "P")
            .replace(r#"{"cachePoint":{"type":"default","ttl":"1h"}}"#, "H")
    }

    #[test]
    fn a_point_stands_behind_its_block() {
        for (items, expected) in [
            ("bBb", "[b,b,P,b]"),
            ("1b", "[1,H,b]"),
            ("", "[]"),
            // Not directly behind a document: behind what follows, or else before it.
            ("bDb", "[b,d,b,P]"),
            ("bDB", "[b,d,b,P]"),
            ("bDdb", "[b,d,d,b,P]"),
            ("bD", "[b,P,d]"),
            ("bdD", "[b,P,d,d]"),
            ("BD", "[b,P,d]"),
            ("D", "[d]"),
        ] {
            assert_eq!(
                written(Caching::OneHour, &[(Section::Messages, items)]),
                expected,
                "{items}"
            );
        }
    }

    #[test]
    fn there_are_at_most_four_and_the_last_ones_stay() {
        assert_eq!(
            written(
                Caching::OneHour,
                &[
                    (Section::Messages, "BBBb"),
                    (Section::System, "1B"),
                    (Section::Tools, "1")
                ]
            ),
            "[b,P,b,P,b,P,b][1,b,P][1]"
        );
    }

    #[test]
    fn an_hour_comes_before_five_minutes() {
        assert_eq!(
            written(
                Caching::OneHour,
                &[
                    (Section::Messages, "1"),
                    (Section::System, "B"),
                    (Section::Tools, "1")
                ]
            ),
            "[1,P][b,P][1,H]"
        );
    }

    #[test]
    fn models_get_no_points_that_they_refuse() {
        let sections = [(Section::System, "1"), (Section::Tools, "B")];
        for (caching, expected) in [
            (Caching::OneHour, "[1,P][b,P]"),
            (Caching::FiveMinutes, "[1,P][b,P]"),
            (Caching::NotInTools, "[1,P][b]"),
            (Caching::No, "[1][b]"),
        ] {
            assert_eq!(written(caching, &sections), expected, "{caching:?}");
        }
    }
}
