//! A comparison's page in a real browser.

use std::path::Path;

use serde_json::Value;
use tund_lab::rights::require;

use super::support::*;

/// Chromium's numbers for a page's preferred colour scheme.
const SCHEMES: [(&str, u8); 2] = [("dark", 0), ("light", 1)];
/// Widths of a desktop's and of a small window, in pixels.
const WIDTHS: [u32; 2] = [1100, 500];

/// Writes the page's layout into its own text, which the browser prints.
const PROBE: &str = r#"<script>
const box = part => part.getBoundingClientRect();
const outside = [...document.querySelectorAll("svg text")].filter(text => {
  const [a, b] = [box(text), box(text.closest("svg"))];
  return a.left < b.left - 1 || a.right > b.right + 1 || a.width == 0;
});
const root = document.documentElement;
document.body.textContent = "<<" + JSON.stringify({
  ground: getComputedStyle(document.body).backgroundColor,
  text: getComputedStyle(document.body).color,
  overflow: Math.max(root.scrollWidth - root.clientWidth, document.body.scrollWidth - document.body.clientWidth),
  outside: outside.map(text => text.textContent),
  bars: [...document.querySelectorAll("rect")].filter(bar => box(bar).width > 1).length,
  plots: document.querySelectorAll("figure svg").length,
  fetched: performance.getEntriesByType("resource").map(entry => entry.name),
}) + ">>";
</script>"#;

fn browse(pair: &Pair, page: &Path, scheme: u8, width: u32, what: &str) -> String {
    require("chromium").unwrap();
    let profile = pair.fri.dir().join("browser");
    // As root, and in a namespace, its own sandbox cannot run; no name resolves.
    let line = format!(
        "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
         --host-resolver-rules='MAP * ~NOTFOUND' --blink-settings=preferredColorScheme={scheme} \
         --user-data-dir={} --window-size={width},900 {what} file://{} 2>/dev/null",
        profile.display(),
        page.display()
    );
    pair.fri.shell(&format!("HOME={} timeout 120 {line}", pair.fri.dir().display())).unwrap()
}

/// The probe's result.
fn laid_out(pair: &Pair, page: &Path, scheme: u8, width: u32) -> Value {
    let dom = browse(pair, page, scheme, width, "--dump-dom");
    let found = dom.split_once("&lt;&lt;").and_then(|(_, rest)| rest.split_once("&gt;&gt;"));
    let (json, _) = found.unwrap_or_else(|| panic!("nothing was laid out: {dom}"));
    serde_json::from_str(json).unwrap()
}

/// Asserts that the page shows all its plots in light and dark, wide and narrow, and requests nothing.
pub fn assert_readable(pair: &Pair, page: &Path, plots: usize) {
    let text = std::fs::read_to_string(page).unwrap();
    let probed = pair.fri.file("probed.html", &text.replace("</body>", &format!("{PROBE}</body>"))).unwrap();
    let blank = pair.fri.file("blank.html", "<!DOCTYPE html><html><body></body></html>").unwrap();
    let picture = |page: &Path, scheme: u8| {
        let file = pair.fri.dir().join("picture.png");
        browse(pair, page, scheme, 1100, &format!("--screenshot={}", file.display()));
        std::fs::read(file).unwrap()
    };
    let mut colours = Vec::new();
    let mut pictures = Vec::new();
    for (name, scheme) in SCHEMES {
        for width in WIDTHS {
            let found = laid_out(pair, &probed, scheme, width);
            assert_eq!(found["overflow"], 0, "{name}, {width}: {found}");
            assert_eq!(found["outside"], Value::Array(Vec::new()), "{name}, {width}: {found}");
            assert_eq!(found["fetched"], Value::Array(Vec::new()), "{name}, {width}: {found}");
            assert_eq!(found["plots"], plots, "{name}, {width}: {found}");
            assert!(found["bars"].as_u64() >= Some(plots as u64), "{name}, {width}: {found}");
            colours.push([found["ground"].clone(), found["text"].clone()]);
        }
        let shown = picture(page, scheme);
        assert!(shown.len() > 4 * picture(&blank, scheme).len(), "{name}: {} bytes of picture", shown.len());
        pictures.push(shown);
    }
    let [dark, _, light, _] = colours.as_slice() else { panic!("{colours:?}") };
    assert!(dark[0] != light[0] && dark[1] != light[1] && dark[0] != dark[1], "{colours:?}");
    assert_ne!(pictures[0], pictures[1]);
}
