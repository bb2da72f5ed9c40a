//! What a configuration key is: its type, range, default, what a change of it takes and what it is for. The keys themselves are in
//! `keys`; what is here reads them, and makes a JSON Schema of them.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Config;
use super::reader::{At, Field, Table};
use super::reload::Takes;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Text in quotes.
    Text,
    /// A text or a list of texts.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A whole number from the first to the second, in a unit if it has one.
    Number(i64, i64, &'static str),
    /// The same, or this word in its place.
    NumberOr(i64, i64, &'static str, &'static str),
    /// A time such as "10s", from the first to the second number of milliseconds.
    Time(u64, u64),
    /// A number of the range of a port, or text, or a list of these.
    Ports,
    /// One of these texts.
    OneOf(Vec<&'static str>),
}

/// The value of a key that the file does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The key has to be there.
    Required,
    /// This value, written as in the file.
    Value(String),
    /// No value of the file does the same: what happens, in Markdown; empty where another key has the answer.
    Words(&'static str),
}

/// One key.
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// What it is for, in lines of Markdown.
    pub doc: &'static [&'static str],
    /// What it holds.
    pub shape: fn() -> Shape,
    /// What counts without it.
    pub absent: fn() -> Absent,
    /// What a change of it under a running link takes.
    pub takes: Takes,
    /// The part of the configuration that it sets; `None`: `reload` compares it together with others.
    pub(super) part: Option<Part>,
}

/// Whether two configurations differ in a part; and gives the first configuration the part of the second.
pub(super) type Part = (fn(&Config, &Config) -> bool, fn(&mut Config, &Config));

/// A table with its keys.
pub struct Section {
    /// The name in brackets; empty for the top of the file.
    pub name: &'static str,
    /// Its keys, in the order of the manual page.
    pub keys: &'static [Key],
}

impl Section {
    /// The full name of a key of it, such as `key.file`.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A table as it was read.
pub(super) trait Declared: Default {
    const SECTION: Section;
    fn read(table: &mut Table<'_, '_>) -> Self;
    /// The table's header, or the whole inline table; `None`: there is no such table.
    fn place(&self) -> Option<Range<usize>>;
}

/// A type that a key can have.
pub(super) trait Read: Sized {
    fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self>;

    /// The value as written in the file, for a type that has defaults.
    fn written(&self) -> String {
        String::new()
    }
}

/// A type whose values have names.
pub(super) trait Named: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

/// The shape of a type whose values have names.
pub(super) fn names<T: Named>() -> Shape {
    Shape::OneOf(T::NAMES.iter().map(|(name, _)| *name).collect())
}

/// Gives the values of types their names.
macro_rules! named {
    ($($type:ty: $($name:literal => $value:expr),+;)+) => {
        $(impl super::schema::Named for $type {
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, $value)),+];
        })+
    };
}
pub(super) use named;

impl<T: Named> Read for T {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        table.choice(key, T::NAMES)
    }

    fn written(&self) -> String {
        let name = T::NAMES.iter().find(|(_, value)| value == self).map_or("", |(name, _)| *name);
        format!("\"{name}\"")
    }
}

impl Read for String {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        table.string(key)
    }
}

impl Read for Vec<At<String>> {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        table.strings(key, false)
    }
}

/// Ports as numbers or text, or texts that have one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ports(pub Vec<At<String>>);

impl Read for Ports {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        match table.value(key).map(toml::Spanned::get_ref) {
            Some(toml::de::DeValue::Integer(_)) => match table.integer(key, 0..=u16::MAX.into(), "") {
                Field::Is(At { value, span }) => {
                    let port = At { value: value.to_string(), span: span.clone() };
                    Field::Is(At { value: Self(vec![port]), span })
                }
                Field::Absent => Field::Absent,
                Field::Wrong => Field::Wrong,
            },
            Some(_) | None => table.strings(key, true).map(|texts| Some(Self(texts))),
        }
    }
}

/// A number, or the word that [`Shape::NumberOr`] takes in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberOr {
    Number(u32),
    Word,
}

impl Read for NumberOr {
    fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self> {
        let Shape::NumberOr(low, high, unit, word) = *shape else { return Field::Wrong };
        match table.value(key).map(toml::Spanned::get_ref) {
            // A number in quotes is told so below.
            Some(toml::de::DeValue::String(text))
                if !text.starts_with(|first: char| first.is_ascii_digit()) =>
            {
                let number = format!("a number of {unit} from {low} to {high} or ");
                table.choice_or(key, &number, &[(word, Self::Word)]).map(Some)
            }
            Some(_) | None => table
                .integer(key, low..=high, unit)
                .map(|number| u32::try_from(number).ok().map(Self::Number)),
        }
    }

    /// The word is nobody's default.
    fn written(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Word => String::new(),
        }
    }
}

impl Read for bool {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        table.boolean(key)
    }

    fn written(&self) -> String {
        self.to_string()
    }
}

impl Read for Duration {
    fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self> {
        let Shape::Time(low, high) = *shape else { return Field::Wrong };
        table.duration(key, Duration::from_millis(low)..=Duration::from_millis(high))
    }

    fn written(&self) -> String {
        let milliseconds = self.as_millis();
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let unit = units.into_iter().find(|(size, _)| milliseconds > 0 && milliseconds.is_multiple_of(*size));
        let (size, unit) = unit.unwrap_or((1, "ms"));
        format!("\"{}{unit}\"", milliseconds / size)
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(impl Read for $type {
            fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self> {
                let Shape::Number(low, high, unit) = *shape else { return Field::Wrong };
                table.integer(key, low..=high, unit).map(|number| Self::try_from(number).ok())
            }

            fn written(&self) -> String {
                self.to_string()
            }
        })*
    };
}
numbers!(i8, u8, u16, u32, usize);

/// Declares a table: a type with a [`Field`] for each key, and the [`Section`] that tells of them. A key with a default also gets a
/// method of its name, which is its value or the default.
macro_rules! table {
    ($type:ident $name:literal $(
        $(#[doc = $doc:literal])+
        $key:literal $field:ident: $value:ty = $shape:expr, $how:ident $(($absent:expr))?, $takes:ident $(=> $($part:ident).+)?;
    )+) => {
        #[derive(Default)]
        pub(super) struct $type {
            place: Option<Range<usize>>,
            $(pub $field: Field<$value>,)+
        }

        impl Declared for $type {
            const SECTION: Section = Section {
                name: $name,
                keys: &[$(Key {
                    name: $key,
                    doc: &[$($doc),+],
                    shape: || $shape,
                    absent: || table!(@absent $value, $how $(($absent))?),
                    takes: Takes::$takes,
                    part: table!(@part $($($part).+)?),
                },)+],
            };

            fn read(table: &mut Table<'_, '_>) -> Self {
                Self {
                    place: Some(table.span.clone()),
                    $($field: <$value as Read>::read(table, $key, &$shape),)+
                }
            }

            fn place(&self) -> Option<Range<usize>> {
                self.place.clone()
            }
        }

        impl $type {
            $(table!(@method $field, $value, $how $(($absent))?);)+
        }
    };
    (@absent $value:ty, required) => { Absent::Required };
    (@absent $value:ty, absent ($words:expr)) => { Absent::Words($words) };
    (@absent $value:ty, default ($default:expr)) => {{
        let default: $value = $default;
        Absent::Value(Read::written(&default))
    }};
    (@method $field:ident, $value:ty, default ($default:expr)) => {
        pub fn $field(&self) -> $value {
            self.$field.value().copied().unwrap_or($default)
        }
    };
    (@method $field:ident, $value:ty, $how:ident $(($absent:expr))?) => {};
    (@part) => { None };
    (@part $($part:ident).+) => {
        Some((|a, b| a.$($part).+ != b.$($part).+, |to, from| to.$($part).+.clone_from(&from.$($part).+)))
    };
}
pub(super) use table;

/// A JSON Schema (draft 7) of the configuration, for editors that complete and check TOML by one.
pub fn json_schema() -> Value {
    let mut top = Map::new();
    for section in super::keys::SECTIONS {
        let (properties, required) = properties(section.keys);
        let table = object(&properties, &required);
        match section.name {
            "" => top.extend(properties),
            "route" => _ = top.insert("route".to_owned(), json!({ "type": "array", "items": table })),
            name => _ = top.insert(name.to_owned(), table),
        }
    }
    let mut schema = object(&top, &["key"]);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "tund.toml: the configuration of one link of tund".into();
    schema
}

fn object(properties: &Map<String, Value>, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn properties(keys: &[Key]) -> (Map<String, Value>, Vec<&'static str>) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        let mut property = (key.shape)().json();
        let words: Vec<&str> = key.doc.iter().map(|line| line.trim()).collect();
        property.insert("description".to_owned(), words.join(" ").into());
        match (key.absent)() {
            Absent::Required => required.push(key.name),
            // The literals of booleans, numbers and these texts are the same in JSON.
            Absent::Value(value) => {
                property.extend(serde_json::from_str(&value).ok().map(|value| ("default".to_owned(), value)));
            }
            Absent::Words(_) => {}
        }
        properties.insert(key.name.to_owned(), property.into());
    }
    (properties, required)
}

impl Shape {
    fn json(&self) -> Map<String, Value> {
        let text = json!({ "type": "string" });
        let schema = match self {
            Self::Text => text,
            Self::Texts => json!({ "anyOf": [text, { "type": "array", "items": text }] }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Number(low, high, _) => json!({ "type": "integer", "minimum": low, "maximum": high }),
            Self::NumberOr(low, high, _, word) => {
                json!({ "anyOf": [{ "type": "integer", "minimum": low, "maximum": high }, { "enum": [word] }] })
            }
            Self::Time(..) => json!({ "type": "string", "pattern": "^[0-9]+\\s*(ms|s|m|min|h)$" }),
            Self::Ports => {
                let port = json!({ "type": "integer", "minimum": 0, "maximum": u16::MAX });
                let list = json!({ "type": "array", "items": { "anyOf": [port, text] } });
                json!({ "anyOf": [port, text, list] })
            }
            Self::OneOf(names) => json!({ "type": "string", "enum": names }),
        };
        schema.as_object().cloned().unwrap_or_default()
    }
}
