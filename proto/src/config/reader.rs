//! Reads a TOML table key by key, with types and places, continuing after mistakes.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::code::Code;
use super::diagnostic::{Diagnostic, Findings, quote};
use super::keys::{RESERVED, RETIRED};
use super::schema::Declared;
use super::suggest;

const TEXT: &str = "text in quotes";
const BOOLEAN: &str = "true or false";
const NUMBER: &str = "a whole number";
const TIME: &str = "a time such as \"10s\"";

/// A value and its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<T> At<T> {
    pub fn at(&self) -> Option<Range<usize>> {
        Some(self.span.clone())
    }

    /// What was made of the value, in its place.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

/// A key as read. A wrong one was reported already: no check may call it missing too.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Wrong,
    Is(At<T>),
}

impl<T> Field<T> {
    pub fn get(&self) -> Option<&At<T>> {
        match self {
            Field::Is(at) => Some(at),
            Field::Absent | Field::Wrong => None,
        }
    }

    /// The place of a right value.
    pub fn at(&self) -> Option<Range<usize>> {
        self.get().and_then(At::at)
    }

    pub fn value(&self) -> Option<&T> {
        self.get().map(|at| &at.value)
    }

    pub fn and_then<U>(self, next: impl FnOnce(At<T>) -> Field<U>) -> Field<U> {
        match self {
            Field::Absent => Field::Absent,
            Field::Wrong => Field::Wrong,
            Field::Is(at) => next(at),
        }
    }

    /// Maps the value. If `change` returns `None`, the field is invalid.
    pub fn map<U>(self, change: impl FnOnce(T) -> Option<U>) -> Field<U> {
        self.and_then(|At { value, span }| {
            change(value).map_or(Field::Wrong, |value| Field::Is(At { value, span }))
        })
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub fn is_wrong(&self) -> bool {
        matches!(self, Field::Wrong)
    }
}

/// A table being read. [`Table::finish`] reports unknown keys.
pub(super) struct Table<'d, 'o> {
    entries: &'d DeTable<'d>,
    /// Section name; empty for the top.
    name: &'static str,
    /// The header, or the whole inline table.
    pub span: Range<usize>,
    out: &'o mut Findings,
}

impl<'d, 'o> Table<'d, 'o> {
    pub fn top(document: &'d Spanned<DeTable<'d>>, out: &'o mut Findings) -> Self {
        Self { entries: document.get_ref(), name: "", span: document.span(), out }
    }

    /// Reads a string.
    pub fn string(&mut self, key: &str) -> Field<String> {
        self.typed(key, TEXT, |value| value.as_str().map(str::to_owned))
    }

    /// Reads a string that is one of `choices`; errors also mention the alternative `else_`, if any.
    pub fn choice<T: Clone>(&mut self, key: &str, else_: &str, choices: &[(&str, T)]) -> Field<T> {
        self.string(key).and_then(|text| {
            if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text.value) {
                return Field::Is(text.with(value.clone()));
            }
            let names = choices.iter().map(|(name, _)| *name);
            let listed: Vec<String> = names.clone().map(|name| format!("\"{name}\"")).collect();
            let message = format!("{} cannot be {}", self.path(key), quote(&text.value));
            let help = match suggest::nearest(&text.value, names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("expected {else_}{}", listed.join(" or ")),
            };
            self.wrong(Code::UnknownValue, text.span, message, help)
        })
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self, key: &str) -> Field<bool> {
        self.typed(key, BOOLEAN, DeValue::as_bool)
    }

    /// Reads an integer within `range`; `unit` may be empty.
    pub fn integer(&mut self, key: &str, range: RangeInclusive<i64>, unit: &str) -> Field<i64> {
        self.typed(key, NUMBER, whole_number).and_then(|number| {
            if let Some(value) = number.value.filter(|value| range.contains(value)) {
                return Field::Is(number.with(value));
            }
            let (low, high) = range.into_inner();
            let message = format!("{} is out of range", self.path(key));
            let of = if unit.is_empty() { "" } else { " of " };
            let help = format!("expected a number{of}{unit} from {low} to {high}");
            self.wrong(Code::OutOfRange, number.span, message, help)
        })
    }

    /// Reads a time such as "10s" within `range`.
    pub fn duration(&mut self, key: &str, range: RangeInclusive<Duration>) -> Field<Duration> {
        self.typed(key, TIME, DeValue::as_str).and_then(|text| {
            let Some(value) = parse_duration(text.value) else {
                let message = format!("{} is not a valid time: {}", self.path(key), quote(text.value));
                let help = "write a number and ms, s, m or h, such as \"500ms\" or \"10s\"";
                return self.wrong(Code::BadTime, text.span, message, help);
            };
            if range.contains(&value) {
                return Field::Is(text.with(value));
            }
            let (low, high) = range.into_inner();
            let message = format!("{} is out of range", self.path(key));
            let help = format!("expected a time from {low:?} to {high:?}");
            self.wrong(Code::OutOfRange, text.span, message, help)
        })
    }

    /// Reads a string or a list of strings; with `ports`, also numbers. Valid elements are kept even if others are invalid.
    pub fn strings(&mut self, key: &str, ports: bool) -> Field<Vec<At<String>>> {
        let Some(value) = self.value(key) else { return Field::Absent };
        let Some(array) = value.get_ref().as_array() else {
            let text = self.typed(key, "text in quotes, or a list of them", DeValue::as_str);
            return text.map(|text| Some(vec![At { value: text.to_owned(), span: value.span() }]));
        };
        let mut texts = Vec::new();
        for element in array {
            let port = whole_number(element.get_ref()).flatten().filter(|_| ports);
            let port = port.and_then(|port| u16::try_from(port).ok()).map(|port| port.to_string());
            match element.get_ref().as_str().map(str::to_owned).or(port) {
                Some(value) => texts.push(At { value, span: element.span() }),
                None => {
                    let message = format!("every element of {} must be {TEXT}", self.path(key));
                    self.out.0.push(wrong_type(message, TEXT, element));
                }
            }
        }
        if texts.len() < array.len() {
            Field::Wrong
        } else {
            Field::Is(At { value: texts, span: value.span() })
        }
    }

    /// Returns the value of `key`, if any, for keys that accept several types.
    pub fn value(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.entries.get(key)
    }

    /// Reads the table of this type, or its default.
    pub fn section<T: Declared>(&mut self) -> T {
        let name = T::SECTION.name;
        let hint = tund_import::equal(name).map_or_else(String::new, |hint| format!("; {hint}"));
        let help = format!("write [{name}] and its keys below it{hint}");
        let value = self.value(name);
        value.and_then(|value| self.inner(value, name, "table", &help)).unwrap_or_default()
    }

    /// Reads every table in the list of this type.
    pub fn sections<T: Declared>(&mut self) -> Vec<T> {
        let name = T::SECTION.name;
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("{name} must be a list of tables, not {}", kind(value.get_ref()));
            let help = format!("write [[{name}]] in double brackets, once for each");
            self.out.error(Code::WrongType, Some(value.span()), message, help);
            return Vec::new();
        };
        let help = format!("write [[{name}]] and its keys below it");
        array.iter().filter_map(|element| self.inner(element, name, "table in a list", &help)).collect()
    }

    fn inner<T: Declared>(
        &mut self,
        value: &'d Spanned<DeValue<'d>>,
        name: &'static str,
        wanted: &str,
        help: &str,
    ) -> Option<T> {
        if let DeValue::Table(entries) = value.get_ref() {
            let mut table = Table { entries, name, span: value.span(), out: self.out };
            let read = T::read(&mut table);
            table.finish();
            return Some(read);
        }
        let message = format!("{name} must be a {wanted}, not {}", kind(value.get_ref()));
        self.out.error(Code::WrongType, Some(value.span()), message, help);
        None
    }

    fn wrong<T>(
        &mut self,
        code: Code,
        place: Range<usize>,
        message: String,
        help: impl Into<String>,
    ) -> Field<T> {
        self.out.error(code, Some(place), message, help);
        Field::Wrong
    }

    /// Reports unknown keys, and those without effect in this version.
    pub fn finish(mut self) {
        let known = suggest::keys_of(self.name);
        for (key, value) in self.entries.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref().as_ref();
            if RESERVED.contains(&(self.name, name)) {
                self.later(name, value);
                continue;
            }
            if let Some((.., why)) =
                RETIRED.iter().find(|(table, key, _)| (*table, *key) == (self.name, name))
            {
                let message = format!("{} has no effect: {why}", self.path(name));
                self.out.warning(Code::NoEffect, Some(key.span()), message, "remove this line");
                continue;
            }
            let place = if self.name.is_empty() { String::new() } else { format!(" in [{}]", self.name) };
            let message = format!("unknown key {}{place}", quote(name));
            let help = suggest::for_unknown(self.name, name);
            self.out.error(Code::UnknownKey, Some(key.span()), message, help);
        }
    }

    fn later(&mut self, key: &str, value: &Spanned<DeValue<'_>>) {
        let (what, line) = match value.get_ref() {
            DeValue::Table(_) => (format!("[{}]", self.path(key)), "table"),
            _ => (self.path(key), "line"),
        };
        let message = format!("{what} is not supported by this version yet");
        self.out.error(Code::NotYet, Some(value.span()), message, format!("remove this {line}"));
    }

    /// Returns the full name of a key, such as `key.file`.
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn typed<T>(&mut self, key: &str, wanted: &str, take: impl Fn(&'d DeValue<'d>) -> Option<T>) -> Field<T> {
        let Some(value) = self.value(key) else { return Field::Absent };
        if let Some(found) = take(value.get_ref()) {
            return Field::Is(At { value: found, span: value.span() });
        }
        let message = format!("{} must be {wanted}, not {}", self.path(key), kind(value.get_ref()));
        self.out.0.push(wrong_type(message, wanted, value));
        Field::Wrong
    }
}

fn wrong_type(message: String, wanted: &str, value: &Spanned<DeValue<'_>>) -> Diagnostic {
    let wants_quotes = wanted != BOOLEAN && wanted != NUMBER;
    let help = match value.get_ref() {
        DeValue::Integer(_) | DeValue::Float(_) if wanted == TIME => {
            Some("write it with its unit, in quotes")
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) if wants_quotes => {
            Some("put it in quotes")
        }
        DeValue::String(_) if !wants_quotes => Some("write it without quotes"),
        DeValue::Table(_) => Some("write a single value after `=`"),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::String(_)
        | DeValue::Array(_) => None,
    };
    Diagnostic {
        help: help.map(str::to_owned),
        ..Diagnostic::error(Code::WrongType, Some(value.span()), message)
    }
}

/// A value's type, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time of day",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `Some(None)`: an integer that does not fit 64 bits.
fn whole_number(value: &DeValue<'_>) -> Option<Option<i64>> {
    value.as_integer().map(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
}

fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_one_number_and_one_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("2 s", 2000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "10", "s", "-1s", "1.5s", "1d", "10S", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
