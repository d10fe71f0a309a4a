//! Reading JSON of clients and upstreams in place: what is not needed is skipped, and nothing recurses, so that neither the depth
//! nor the number of its parts costs memory.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

/// The values of the members of `object` that have these names: the last one where a name is given twice, and nothing for `null`.
pub(crate) fn pick<'a, const N: usize>(
    object: &'a str,
    names: [&str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    let mut reader = Deserializer::from_str(object);
    let picked = (&mut reader).deserialize_map(Pick(names))?;
    reader.end()?;
    Ok(picked.map(|value| value.filter(|value| value.get() != "null")))
}

/// A type that holds the members of an object that are looked at, by their names, and `read`s them in one pass.
macro_rules! picked {
    ($(#[$about:meta])* struct $of:ident { $($member:ident: $name:literal,)+ }) => {
        $(#[$about])*
        struct $of<'a> {
            $($member: Option<&'a serde_json::value::RawValue>,)+
        }

        impl<'a> $of<'a> {
            fn read(object: &'a str) -> Result<Self, serde_json::Error> {
                let [$($member,)+] = $crate::adapter::json::pick(object, [$($name,)+])?;
                Ok(Self { $($member,)+ })
            }
        }
    };
}
pub(crate) use picked;

struct Pick<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(at) = map.next_key_seed(Position(&self.0))? {
            match at.and_then(|at| found.get_mut(at)) {
                Some(value) => *value = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A name's place in a list.
struct Position<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name))
    }
}

/// Calls `on_item` for each item of `list`, in order, until it fails.
pub(crate) fn each<'a, E: From<serde_json::Error>>(
    list: &'a str,
    on_item: impl FnMut(usize, &'a RawValue) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    let mut reader = Deserializer::from_str(list);
    let read = (&mut reader).deserialize_seq(Each {
        on_item,
        failed: &mut failed,
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(read.and_then(|()| reader.end())?),
    }
}

struct Each<'f, F, E> {
    on_item: F,
    failed: &'f mut Option<E>,
}

impl<'de, E, F: FnMut(usize, &'de RawValue) -> Result<(), E>> Visitor<'de> for Each<'_, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let mut at = 0;
        while let Some(item) = list.next_element()? {
            if let Err(error) = (self.on_item)(at, item) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("given up"));
            }
            at += 1;
        }
        Ok(())
    }
}

/// Calls `on_member` with the name and value of each member of `object`, in order, until it fails.
pub(crate) fn members<'a, E: From<serde_json::Error>>(
    object: &'a str,
    on_member: impl FnMut(&str, &'a RawValue) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    let mut reader = Deserializer::from_str(object);
    let read = (&mut reader).deserialize_map(Members {
        on_member,
        failed: &mut failed,
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(read.and_then(|()| reader.end())?),
    }
}

struct Members<'f, F, E> {
    on_member: F,
    failed: &'f mut Option<E>,
}

impl<'de, E, F: FnMut(&str, &'de RawValue) -> Result<(), E>> Visitor<'de> for Members<'_, F, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            if let Err(error) = (self.on_member)(&name, map.next_value()?) {
                *self.failed = Some(error);
                return Err(serde::de::Error::custom("given up"));
            }
        }
        Ok(())
    }
}

/// A name, borrowed where nothing in it is escaped.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// `object` without the members of these names; the values of the others stay as they are.
pub(crate) fn without(object: &str, names: &[&str]) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(object.len());
    out.push(b'{');
    members::<serde_json::Error>(object, |name, value| {
        if !names.contains(&name) {
            if out.len() > 1 {
                out.push(b',');
            }
            write_text(&mut out, name);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        Ok(())
    })?;
    out.push(b'}');
    String::from_utf8(out).map_err(serde::de::Error::custom)
}

/// Whether a value says anything: `null`, an empty list and an empty object do not.
pub(crate) fn is_used(value: &RawValue) -> bool {
    let text = value.get();
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .or_else(|| text.strip_prefix('{')?.strip_suffix('}'));
    text != "null" && inside.is_none_or(|inside| !inside.trim().is_empty())
}

/// What kind of value this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    List,
    Text,
    Number,
    Other,
}

/// The kind of a value, by its first character.
pub(crate) fn kind_of(value: &RawValue) -> Kind {
    match value.get().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::List,
        Some(b'"') => Kind::Text,
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        _ => Kind::Other,
    }
}

/// A string between its quotes, escaped as it is; `None` for any other value.
pub(crate) fn escaped(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

/// A string's text, borrowed where nothing in it is escaped; `None` for any other value, and for half a surrogate pair.
pub(crate) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = escaped(value)?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// Whether a string holds nothing but white space.
pub(crate) fn is_blank(value: &RawValue) -> bool {
    let Some(inner) = escaped(value) else {
        return false;
    };
    match inner.trim_start().as_bytes().first() {
        None => true,
        Some(b'\\') => text(value).is_some_and(|text| text.trim().is_empty()),
        Some(_) => false,
    }
}

/// Whether a value is `true`.
pub(crate) fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get() == "true")
}

/// A whole number that is not negative.
pub(crate) fn count(value: Option<&RawValue>) -> Option<u64> {
    value?.get().parse().ok()
}

/// Appends text as a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail, and a string always has a JSON form.
    serde_json::to_writer(out, text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn members_are_picked_by_name_whatever_else_there_is() {
        let [a, b, c] = pick(
            r#"{"b" : [1, {"a":2}], "a":1, "x":{}, "\u0061":"last", "c":null}"#,
            ["a", "b", "c"],
        )
        .unwrap();
        assert_eq!(a.unwrap().get(), r#""last""#);
        assert_eq!(b.unwrap().get(), r#"[1, {"a":2}]"#);
        assert!(c.is_none());
        for no_object in ["", "[]", "1", r#"{"a":}"#, "{} {}"] {
            assert!(pick(no_object, ["a"]).is_err(), "{no_object}");
        }
    }

    #[test]
    fn items_come_in_order_until_one_fails() {
        let mut seen = Vec::new();
        each::<serde_json::Error>("[1, [2], {}]", |at, item| {
            seen.push((at, item.get().to_owned()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(0, "1".into()), (1, "[2]".into()), (2, "{}".into())]);
        let mut calls = 0;
        let given_up = each("[1,2,3]", |_, _| {
            calls += 1;
            Err(serde::de::Error::custom("mine"))
        });
        let error: serde_json::Error = given_up.unwrap_err();
        assert_eq!((calls, error.to_string().as_str()), (1, "mine"));
        assert!(each::<serde_json::Error>("{}", |_, _| Ok(())).is_err());
    }

    #[test]
    fn members_come_in_order_with_their_names() {
        let mut seen = Vec::new();
        members::<serde_json::Error>(r#"{"b":1,"\u0061":[2] ,"b":null}"#, |name, value| {
            seen.push(format!("{name}={}", value.get()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["b=1", "a=[2]", "b=null"]);
        assert!(members::<serde_json::Error>("[]", |_, _| Ok(())).is_err());
    }

    #[test]
    fn an_object_is_left_without_members_and_the_rest_as_it_was() {
        let object = r#"{"a": 1.50, "b":[ {} ],"c":{}}"#;
        assert_eq!(without(object, &["a", "c"]).unwrap(), r#"{"b":[ {} ]}"#);
        assert_eq!(
            without(object, &["b", "x"]).unwrap(),
            r#"{"a":1.50,"c":{}}"#
        );
        assert_eq!(without("{}", &[]).unwrap(), "{}");
        assert!(without("[]", &[]).is_err());
    }

    #[test]
    fn what_is_empty_says_nothing() {
        for empty in ["null", "[]", "{}", "[ \n]", "{ }"] {
            assert!(!is_used(raw(empty)), "{empty}");
        }
        for used in ["[0]", r#"{"a":1}"#, r#""""#, "false", "0"] {
            assert!(is_used(raw(used)), "{used}");
        }
    }

    #[test]
    fn depth_costs_nothing() {
        const DEPTH: usize = 100_000;
        let deep = format!(
            r#"{{"a":{}1{},"b":2}}"#,
            "[".repeat(DEPTH),
            "]".repeat(DEPTH)
        );
        let [a, b] = pick(&deep, ["a", "b"]).unwrap();
        assert_eq!(
            (a.unwrap().get().len(), b.unwrap().get()),
            (2 * DEPTH + 1, "2")
        );
    }

    #[test]
    fn strings_are_read_with_and_without_escapes() {
        assert!(matches!(text(raw(r#""aé""#)), Some(Cow::Borrowed("aé"))));
        assert_eq!(text(raw(r#""a\u00e9\n""#)).as_deref(), Some("aé\n"));
        assert_eq!((text(raw("1")), text(raw(r#""\ud800""#))), (None, None));
        for (json, blank) in [
            (r#""""#, true),
            (r#"" \n\t\u00a0""#, true),
            (r#"" a""#, false),
            (r#""\u0061""#, false),
            ("1", false),
        ] {
            assert_eq!(is_blank(raw(json)), blank, "{json}");
        }
    }
}
