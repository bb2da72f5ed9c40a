//! The test vectors of PROTOCOL.md, for tests that check the code against them.
//!
//! A vector is a fenced block whose info string is `vector NAME`. Each line is `KEY: HEX`; a line without a key continues
//! the one before; `#` begins a comment.

const PROTOCOL: &str = include_str!("../../../PROTOCOL.md");

/// One vector.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) name: &'static str,
    /// Keys in the order of the text, possibly repeated.
    pub(crate) values: Vec<(&'static str, Vec<u8>)>,
}

impl Vector {
    /// All values with this key.
    pub(crate) fn all(&self, key: &str) -> Vec<&[u8]> {
        self.values.iter().filter(|(of, _)| *of == key).map(|(_, value)| value.as_slice()).collect()
    }

    /// The only value with this key.
    pub(crate) fn one(&self, key: &str) -> &[u8] {
        let all = self.all(key);
        assert_eq!(all.len(), 1, "vector {} wants exactly one {key}", self.name);
        all[0]
    }
}

/// Returns the vectors whose names begin with `prefix`.
pub(crate) fn vectors(prefix: &str) -> Vec<Vector> {
    let found =
        parse(PROTOCOL).into_iter().filter(|vector| vector.name.starts_with(prefix)).collect::<Vec<_>>();
    assert!(!found.is_empty(), "PROTOCOL.md has no vector {prefix}…");
    found
}

/// Bytes in PROTOCOL.md's notation.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &'static str) -> Vec<Vector> {
    let mut vectors = Vec::<Vector>::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("```vector ") {
            vectors.push(Vector { name: name.trim(), values: Vec::new() });
            inside = true;
        } else if line.starts_with("```") {
            inside = false;
        } else if inside {
            let vector = vectors.last_mut().unwrap();
            read_line(line.split('#').next().unwrap_or_default(), vector);
        }
    }
    assert!(!inside, "the last vector has no end");
    vectors
}

fn read_line(line: &'static str, vector: &mut Vector) {
    let digits = match line.split_once(':') {
        Some((key, digits)) => {
            vector.values.push((key.trim(), Vec::new()));
            digits
        }
        None => line,
    };
    let digits = digits.split_whitespace().collect::<String>();
    assert!(digits.len() % 2 == 0, "odd number of digits in vector {}: {line}", vector.name);
    for byte in digits.as_bytes().chunks(2) {
        let byte = u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 16);
        let byte = byte.unwrap_or_else(|_| panic!("not hexadecimal in vector {}: {line}", vector.name));
        vector.values.last_mut().expect("the first line has a key").1.push(byte);
    }
}

#[test]
fn a_vector_is_read_with_comments_repeats_and_continuations() {
    let text = "text\n```vector a/b\nkey: 00 ff # note\n 10\nkey: 01\nempty:\n```\n```text\nkey: 02\n```\n";
    let values = vec![("key", vec![0x00, 0xff, 0x10]), ("key", vec![0x01]), ("empty", vec![])];
    assert_eq!(parse(text), [Vector { name: "a/b", values }]);
}
