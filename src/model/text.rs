//! Names and numbers for people, in a terminal or a browser: nothing that moves the cursor, reorders the text around it
//! or cannot be seen.

use std::borrow::Cow;

use super::snapshot::Name;

/// The text with each character that a terminal or a browser would obey or hide written as an escape.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for char in text.chars() {
        if is_hidden(char) { shown.extend(char.escape_unicode()) } else { shown.push(char) }
    }
    Cow::Owned(shown)
}

/// Control characters, and those of Unicode's format characters that reorder text or take no room.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A name for people, in one line of at most 120 characters; a longer one has its middle left out.
#[must_use]
pub fn name(name: &Name) -> String {
    line(&name.shown())
}

/// As [`name`], for a name that is text already.
#[must_use]
pub fn line(name: &str) -> String {
    const LONGEST: usize = 120;
    let shown = visible(name);
    let length = shown.chars().count();
    if length <= LONGEST {
        return shown.into_owned();
    }
    let begin: String = shown.chars().take(LONGEST / 2).collect();
    let end: String = shown.chars().skip(length - LONGEST / 2 + 1).collect();
    format!("{begin}\u{2026}{end}")
}

/// A name as one word of a shell command; `None` for a name that cannot be typed as it is shown.
#[must_use]
pub fn shell_word(name: &Name) -> Option<String> {
    let name = std::str::from_utf8(name.as_bytes()).ok().filter(|name| !name.contains(is_hidden))?;
    shlex::try_quote(name).ok().map(Cow::into_owned)
}

/// A time in one or two units: `350 ms`, `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    if seconds < 0.9995 {
        return if seconds < 0.0005 { "0 s".into() } else { format!("{:.0} ms", seconds * 1000.0) };
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this era, above 0")]
    let whole = seconds.round() as u64;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => two(whole / 60, "min", whole % 60, "s"),
        3600..86_400 => two(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => two(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// A time in its largest unit, for narrow columns: `12 s`, `3 min`, `2 h`, `4 d`.
#[must_use]
pub fn short_duration(seconds: f64) -> String {
    let long = duration(seconds);
    long.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A whole number with a comma between thousands.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things: `1 stream`, `2,000 streams`. `plural` is their name for all numbers but 1.
#[must_use]
pub fn counted(number: u64, plural: &str) -> String {
    let name = match (number, plural) {
        (1, "entries") => "entry",
        (1, _) => plural.trim_end_matches('s'),
        _ => plural,
    };
    format!("{} {name}", count(number))
}

/// As [`count`], for a number that Redis may give a sign.
#[must_use]
pub fn signed_count(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", count(number.unsigned_abs()))
}

/// A number of bytes: `512 B`, `1.5 MiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let mut unit = (1, "B");
    for next in [(1 << 10, "KiB"), (1 << 20, "MiB"), (1 << 30, "GiB"), (1 << 40, "TiB")] {
        if bytes >= next.0 {
            unit = next;
        }
    }
    match unit {
        (1, name) => format!("{bytes} {name}"),
        (size, name) => format!("{}.{} {name}", bytes / size, bytes % size * 10 / size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_named_in_the_singular() {
        let counted = |number| [counted(number, "streams"), counted(number, "entries")];
        assert_eq!(counted(1), ["1 stream", "1 entry"]);
        assert_eq!(counted(0), ["0 streams", "0 entries"]);
        assert_eq!(counted(2000), ["2,000 streams", "2,000 entries"]);
    }

    #[test]
    fn hostile_names_are_shown_harmless() {
        for (raw, shown) in [
            ("instrument:lsstcam", "instrument:lsstcam"),
            ("<script>", "<script>"),
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            ("a\u{9b}31mb", "a\\u{9b}31mb"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("two\nlines\r\t\0", "two\\u{a}lines\\u{d}\\u{9}\\u{0}"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            ("\u{5d0}\u{5d1}", "\u{5d0}\u{5d1}"),
        ] {
            assert_eq!(name(&raw.into()), shown);
        }
        assert_eq!(name(&b"a\xffb"[..].into()), "a\u{fffd}b");
        let long = name(&"x".repeat(5000).as_str().into());
        assert_eq!(long.chars().count(), 120);
    }

    #[test]
    fn a_name_is_one_word_of_a_shell_or_left_out() {
        for (raw, word) in [
            ("instrument:lsstcam", Some("instrument:lsstcam")),
            ("two words", Some("'two words'")),
            ("$(reboot)`x`;&|", Some("'$(reboot)`x`;&|'")),
            ("-n", Some("-n")),
            ("", Some("''")),
            ("a\u{1b}b", None),
            ("a\nb", None),
            ("a\u{202e}b", None),
        ] {
            assert_eq!(shell_word(&raw.into()).as_deref(), word, "{raw:?}");
        }
        assert_eq!(shell_word(&b"\xff"[..].into()), None);
        let quote = shell_word(&"it's".into()).unwrap();
        assert_eq!(shlex::split(&quote).unwrap(), ["it's"]);
    }

    #[test]
    fn times_have_one_or_two_units() {
        for (seconds, shown) in [
            (0.0, "0 s"),
            (0.35, "350 ms"),
            (0.9996, "1 s"),
            (12.4, "12 s"),
            (59.7, "1 min"),
            (200.0, "3 min 20 s"),
            (7500.0, "2 h 5 min"),
            (3600.0, "1 h"),
            (356_400.0, "4 d 3 h"),
        ] {
            assert_eq!(duration(seconds), shown);
        }
        assert_eq!((short_duration(200.0), short_duration(12.4)), ("3 min".into(), "12 s".into()));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, shown) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), shown);
        }
        assert_eq!(signed_count(-1234), "-1,234");
        assert_eq!(
            (bytes(512), bytes(1_572_864), bytes(4 << 30)),
            ("512 B".into(), "1.5 MiB".into(), "4.0 GiB".into())
        );
    }
}
