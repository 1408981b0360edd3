//! A report as text for a terminal: who was reached, a table with the trouble first, and the findings.
//!
//! Nothing out of Redis reaches the terminal unless it is harmless: names go through [`text`].

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Row as TableRow, Table, Width,
    presets::NOTHING,
};

use crate::{
    model::{findings::Severity, text},
    report::{FindingReport, Redis, Report, Row, State},
};

/// How wide the text may be, and whether it may have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal. Commands to paste are not wrapped, so their lines may be longer.
    pub width: u16,
    /// Whether escape sequences for colours may be in it.
    pub colour: bool,
}

/// Where a number is not known.
const UNKNOWN: &str = "-";
/// The least that is left for names.
const NAMES: usize = 20;
/// The columns of numbers, and in which order they are left out where the terminal is narrow: the highest first.
const NUMBERS: [(&str, u8); 8] = [
    ("waiting", 0),
    ("oldest", 0),
    ("pending", 1),
    ("oldest", 2),
    ("lag", 3),
    ("read", 5),
    ("consumers", 6),
    ("last\nentry", 4),
];

/// Writes the report.
#[must_use]
pub fn render(report: &Report, style: Style) -> String {
    let mut parts = vec![heading(report, style)];
    let rows = report.rows();
    if !rows.is_empty() {
        parts.push(table(&rows, style));
    }
    parts.extend(report.findings.iter().map(|finding| finding_text(finding, style)));
    if report.findings.is_empty() && report.redis.up {
        parts.push("Nothing needs attention.\n".into());
    }
    parts.join("\n")
}

fn heading(report: &Report, style: Style) -> String {
    let Redis { address, user, up, server, mode, role, uptime_seconds, memory_used_bytes, memory_max_bytes, .. } =
        &report.redis;
    if !up {
        return paragraph(
            &format!("{}: NOT REACHED, as user {}", text::visible(address), text::visible(user)),
            0,
            style,
        );
    }
    let mut facts: Vec<String> =
        [server, mode, role].into_iter().flatten().map(|fact| text::visible(fact).into_owned()).collect();
    #[expect(clippy::cast_precision_loss, reason = "an uptime")]
    facts.extend(uptime_seconds.map(|seconds| format!("up for {}", text::duration(seconds as f64))));
    facts.extend(memory_used_bytes.map(|used| match memory_max_bytes {
        Some(limit) if *limit > 0 => format!("{} of {} in use", text::bytes(used), text::bytes(*limit)),
        _ => format!("{} in use", text::bytes(used)),
    }));
    facts.push(format!("reached as user {}", text::visible(user)));
    let missing = report.findings.iter().filter(|finding| finding.code == "right_missing").count();
    facts.push(match missing {
        0 => "with every right that was needed".into(),
        _ => "with fewer rights than needed".into(),
    });
    let mut out = paragraph(&format!("{}: {}.", text::visible(address), facts.join(", ")), 0, style);
    let mut watched: Vec<_> = report
        .patterns
        .iter()
        .map(|pattern| format!("{} matches {}", text::visible(&pattern.pattern), text::count(pattern.streams)))
        .collect();
    watched.push(format!("{} watched", text::counted(report.streams.len() as u64, "streams")));
    watched.push(format!("collected in {}", text::duration(report.collection_seconds)));
    out.push_str(&paragraph(&format!("{}.", watched.join(", ")), 0, style));
    out
}

fn table(rows: &[Row<'_>], style: Style) -> String {
    let numbers: Vec<_> = rows.iter().map(numbers).collect();
    let widest = |column: usize| {
        let title = NUMBERS[column].0.lines().map(str::len).max().unwrap_or(0);
        numbers.iter().map(|row| row[column].len()).chain([title]).max().unwrap_or(title)
    };
    let widths: Vec<_> = (0..NUMBERS.len()).map(widest).collect();
    let shown = shown_columns(&widths, usize::from(style.width));

    let mut table = empty_table(style);
    let titles = NUMBERS.iter().map(|(title, _)| Cell::new(title).set_alignment(CellAlignment::Right));
    table.set_header(["", "stream / group"].map(Cell::new).into_iter().chain(titles));
    for (row, numbers) in rows.iter().zip(numbers) {
        table.add_row(line(row, numbers));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index != 1 {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    for (index, is_shown) in shown.iter().enumerate() {
        if let Some(column) = table.column_mut(index + 2).filter(|_| !is_shown) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    trimmed(&table)
}

/// Which columns of numbers there is room for.
fn shown_columns(widths: &[usize], width: usize) -> Vec<bool> {
    let mut shown = vec![true; widths.len()];
    let needed = |shown: &[bool]| -> usize {
        let numbers = widths.iter().zip(shown).filter(|(_, shown)| **shown).map(|(width, _)| width + 2);
        "critical".len() + 2 + NAMES + 2 + numbers.sum::<usize>()
    };
    while needed(&shown) > width {
        let candidates = (0..widths.len()).filter(|column| shown[*column] && NUMBERS[*column].1 > 0);
        match candidates.max_by_key(|column| NUMBERS[*column].1) {
            Some(column) => shown[column] = false,
            None => break,
        }
    }
    shown
}

fn numbers(row: &Row<'_>) -> Vec<String> {
    let count = |number: Option<u64>| number.map_or(UNKNOWN.into(), text::count);
    let age = |seconds: Option<f64>| seconds.map_or(UNKNOWN.into(), text::short_duration);
    let signed = |number: Option<i64>| number.map_or(UNKNOWN.into(), text::signed_count);
    let last_entry = age(row.stream.last_entry_age_seconds);
    let Some(group) = row.group else {
        let mut numbers = vec![UNKNOWN.to_owned(); NUMBERS.len() - 1];
        numbers.push(last_entry);
        return numbers;
    };
    let waiting = match (group.undelivered, group.undelivered_at_least) {
        (None, Some(least)) => format!("{}+", text::count(least)),
        (exact, _) => count(exact),
    };
    // A zero says that nothing waits: an age of it would only be noise.
    let age_of = |number: Option<u64>, seconds| if number == Some(0) { String::new() } else { age(seconds) };
    vec![
        waiting,
        age_of(group.undelivered, group.oldest_undelivered_age_seconds),
        count(group.pending),
        age_of(group.pending, group.oldest_pending_age_seconds),
        signed(group.lag),
        signed(group.entries_read),
        count(group.consumers),
        last_entry,
    ]
}

fn line(row: &Row<'_>, numbers: Vec<String>) -> TableRow {
    let mut line = TableRow::new();
    line.add_cell(severity_cell(row.severity()));
    line.add_cell(Cell::new(row_name(row)));
    for number in numbers {
        line.add_cell(Cell::new(number).set_alignment(CellAlignment::Right));
    }
    line
}

fn row_name(row: &Row<'_>) -> String {
    let stream = isolated(text::line(&row.stream.name));
    let state = match row.stream.state {
        State::Found => "",
        State::Missing => " (missing)",
        State::Failed => " (not readable)",
        State::NotCollected => " (not reached in time)",
    };
    match row.group {
        None => format!("{stream}{state}"),
        Some(group) => {
            let is_missing = group.exists == Some(false) && row.stream.state == State::Found;
            let missing = if is_missing { " (missing)" } else { "" };
            format!("{stream}{state} / {}{missing}", isolated(text::line(&group.name)))
        }
    }
}

/// A name with letters that are written from right to left, in marks that keep it from reordering what stands beside it.
fn isolated(name: String) -> String {
    let is_rtl = |char| matches!(char, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{feff}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}');
    if name.contains(is_rtl) { format!("\u{2068}{name}\u{2069}") } else { name }
}

fn severity_cell(severity: Option<Severity>) -> Cell {
    match severity {
        None => Cell::new("ok").fg(Color::Green),
        Some(severity) => Cell::new(severity.as_str()).fg(colour(severity)).add_attribute(Attribute::Bold),
    }
}

const fn colour(severity: Severity) -> Color {
    match severity {
        Severity::Critical => Color::Red,
        Severity::Warning => Color::Yellow,
        Severity::Info => Color::Cyan,
    }
}

fn finding_text(finding: &FindingReport, style: Style) -> String {
    let mut title = empty_table(style);
    title.add_row([severity_cell(Some(finding.severity)), Cell::new(&finding.about).add_attribute(Attribute::Bold)]);
    if let Some(column) = title.column_mut(0) {
        column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
    }
    if let Some(column) = title.column_mut(1) {
        column.set_padding((0, 0));
    }
    let mut out = trimmed(&title);
    out.push_str(&paragraph(&format!("{} {}", finding.sentence, finding.meaning), 2, style));
    for command in &finding.commands {
        out.push_str(&paragraph(&format!("# {}", command.purpose), 2, style));
        // In one line however wide, so that it can be pasted.
        out.push_str("  ");
        out.push_str(&command.line);
        out.push('\n');
    }
    out
}

/// A text in lines that fit, each after this many spaces.
fn paragraph(text: &str, indent: u16, style: Style) -> String {
    let mut table = empty_table(style);
    table.add_row([text]);
    if let Some(column) = table.column_mut(0) {
        column.set_padding((indent, 0)).set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(style.width)));
    }
    trimmed(&table)
}

fn empty_table(style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(style.width.max(40));
    // Neither looks at the environment or at the terminal.
    if style.colour {
        table.enforce_styling()
    } else {
        table.force_no_tty()
    };
    table
}

fn trimmed(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
