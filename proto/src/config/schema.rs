//! Describes configuration keys: type, range, default, what a change requires, and purpose. The keys are in `keys`;
//! this reads them and makes a JSON Schema of them.

use std::ops::Range;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Config;
use super::reader::{At, Field, Table};
use super::reload::Takes;

/// Type of a key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// A string or a list of strings.
    Texts,
    /// `true` or `false`.
    Flag,
    /// An integer, with minimum, maximum and unit, if any.
    Number(i64, i64, &'static str),
    /// The same, or this word.
    NumberOr(i64, i64, &'static str, &'static str),
    /// A time such as "10s", with minimum and maximum in milliseconds.
    Time(u64, u64),
    /// A port number, a string, or a list of these.
    Ports,
    /// One of these strings.
    OneOf(Vec<&'static str>),
}

/// The value of an absent key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The key is required.
    Required,
    /// This value, as written in the file.
    Value(String),
    /// No value has the same effect: Markdown that says what happens; empty if another key does.
    Words(&'static str),
}

/// One key.
pub struct Key {
    /// Name in its table.
    pub name: &'static str,
    /// Purpose, in lines of Markdown.
    pub doc: &'static [&'static str],
    /// Type of its value.
    pub shape: fn() -> Shape,
    /// Default.
    pub absent: fn() -> Absent,
    /// What changing it requires while the link runs.
    pub takes: Takes,
    /// The part of the configuration that it sets; `None`: `reload` compares several keys together.
    pub(super) part: Option<Part>,
}

/// Whether two configurations differ in a part; copies that part from the second to the first.
pub(super) type Part = (fn(&Config, &Config) -> bool, fn(&mut Config, &Config));

/// A table with its keys.
pub struct Section {
    /// Name in brackets; empty for the top of the file.
    pub name: &'static str,
    /// Its keys, in manual page order.
    pub keys: &'static [Key],
}

impl Section {
    /// Returns the full name of a key, such as `key.file`.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}

/// A table as it was read.
pub(super) trait Declared: Default {
    const SECTION: Section;
    fn read(table: &mut Table<'_, '_>) -> Self;
    /// The table's header, or the whole inline table; `None` if the table is absent.
    fn place(&self) -> Option<Range<usize>>;
}

/// A type that a key can have.
pub(super) trait Read: Sized {
    fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self>;

    /// Formats the value as in a file, for types with defaults.
    fn written(&self) -> String {
        String::new()
    }
}

/// A type with named values.
pub(super) trait Named: Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

/// The shape of a type with named values.
pub(super) fn names<T: Named>() -> Shape {
    Shape::OneOf(T::NAMES.iter().map(|(name, _)| *name).collect())
}

/// Names the values of types.
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
        table.choice(key, "", T::NAMES)
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

/// Ports as numbers or strings, or strings with a port.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ports(pub Vec<At<String>>);

impl Read for Ports {
    fn read(table: &mut Table<'_, '_>, key: &str, _: &Shape) -> Field<Self> {
        match table.value(key).map(toml::Spanned::get_ref) {
            Some(toml::de::DeValue::Integer(_)) => table
                .integer(key, 0..=u16::MAX.into(), "")
                .and_then(|port| Field::Is(port.with(Self(vec![port.with(port.value.to_string())])))),
            Some(_) | None => table.strings(key, true).map(|texts| Some(Self(texts))),
        }
    }
}

/// A number, or the word of [`Shape::NumberOr`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberOr {
    Number(u32),
    Word,
}

impl Read for NumberOr {
    fn read(table: &mut Table<'_, '_>, key: &str, shape: &Shape) -> Field<Self> {
        let Shape::NumberOr(low, high, unit, word) = *shape else { return Field::Wrong };
        match table.value(key).map(toml::Spanned::get_ref) {
            // A quoted number is reported below.
            Some(toml::de::DeValue::String(text))
                if !text.starts_with(|first: char| first.is_ascii_digit()) =>
            {
                let number = format!("a number of {unit} from {low} to {high} or ");
                table.choice(key, &number, &[(word, Self::Word)]).map(Some)
            }
            Some(_) | None => table
                .integer(key, low..=high, unit)
                .map(|number| u32::try_from(number).ok().map(Self::Number)),
        }
    }

    /// The word is never a default.
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

/// Declares a table: a type with a [`Field`] for each key, and its [`Section`]. A key with a default also gets a
/// getter, which returns the value or the default.
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

/// Returns a JSON Schema (draft 7) of the configuration, for editors that complete and check TOML.
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
            // Booleans, numbers and these strings have the same literals in JSON.
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
