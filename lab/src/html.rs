//! Common parts of the pages: HTML and SVG, no scripts, no external resources, light and dark.

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #ffffff; --text: #1d2329; --faint: #5c6670; --rule: #d5dade;
  --other: #8fa3b5; --own: #0b6e4f; --spread: #1d2329; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14181c; --text: #e4e8eb; --faint: #98a3ad; --rule: #343b42;
    --other: #5b6f82; --own: #3fbf8f; --spread: #e4e8eb; --bad: #f2857d; }
}
body { background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 800px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } figure { margin: 2rem 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--text); font-size: 13px; }
.own { fill: var(--own); } .other { fill: var(--other); } .spread { stroke: var(--spread); stroke-width: 1.5; }
.axis { stroke: var(--rule); } p, li, .faint { color: var(--faint); } dt { font-weight: 600; }
dd { margin: 0 0 .4rem 1.2rem; color: var(--faint); } pre { overflow-x: auto; font-size: 13px; line-height: 1.3; }
td, th { text-align: left; padding: .1rem .8rem .1rem 0; vertical-align: top; } .bad { color: var(--bad); }
h2 { font-size: 1.1rem; margin-top: 2rem; }";

/// Formats a page. It is also well-formed XML, if the body is.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\" />\n\
         <meta name=\"viewport\" content=\"width=device-width\" />\n<title>{}</title>\n\
         <style>{STYLE}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// Escapes text for a page or an attribute.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Fails if a tag is not closed, or a resource is external.
#[cfg(test)]
pub fn assert_sound(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "in {tag}");
        } else if !tag.ends_with('/') && !tag.starts_with('!') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(page.contains("prefers-color-scheme: dark"));
    for part in ["<script", "src=", "<link", "url("] {
        assert!(!page.contains(part), "{part}");
    }
}
