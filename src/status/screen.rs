//! The terminal while `status --watch` runs: an alternate screen that is left as it was found, however the program ends.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, size},
};

use super::table::Style;

/// The width where there is no terminal.
const PAGE_WIDTH: u16 = 100;

/// How to write to standard output: as wide as the terminal, and with colours unless `NO_COLOR` is set.
pub(super) fn style() -> Style {
    let is_terminal = io::stdout().is_terminal();
    // By the convention of no-color.org an empty variable does not count.
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let width = if is_terminal { size().map_or(PAGE_WIDTH, |(width, _)| width.max(40)) } else { PAGE_WIDTH };
    Style { width, colour: is_terminal && !no_colour && !is_dumb }
}

/// The alternate screen, which is left when this is dropped.
pub(super) struct Screen {
    is_terminal: bool,
}

impl Screen {
    /// Where standard output is no terminal, frames are written one after the other.
    pub(super) fn enter() -> io::Result<Self> {
        let screen = Self { is_terminal: io::stdout().is_terminal() };
        if screen.is_terminal {
            execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        }
        Ok(screen)
    }

    /// Replaces what is shown. What does not fit is cut off, and a line says so.
    pub(super) fn draw(&self, frame: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            writeln!(out, "{frame}")?;
            return out.flush();
        }
        let (width, height) = size().unwrap_or((PAGE_WIDTH, 40));
        queue!(out, MoveTo(0, 0))?;
        for line in fitting(frame, usize::from(width), usize::from(height)) {
            // Cleared line by line, so that nothing flickers.
            queue!(out, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            // The terminal may be gone already.
            let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        }
    }
}

/// The lines that fit, with one row kept free for the cursor.
fn fitting(frame: &str, width: usize, height: usize) -> Vec<String> {
    // Escape sequences for colours take no room, so this counts too much rather than too little.
    let rows = |line: &str| line.chars().count().div_ceil(width.max(1)).max(1);
    let room = height.saturating_sub(2);
    let (mut used, mut lines) = (0, Vec::new());
    let all: Vec<_> = frame.lines().collect();
    for line in &all {
        if used + rows(line) > room {
            break;
        }
        used += rows(line);
        lines.push((*line).to_owned());
    }
    if lines.len() < all.len() {
        lines.push(format!("... {} more lines: a higher terminal shows them", all.len() - lines.len()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_said() {
        assert_eq!(fitting("a\nb", 80, 24), ["a", "b"]);
        assert_eq!(fitting("a\nb\nc\nd", 80, 4), ["a", "b", "... 2 more lines: a higher terminal shows them"]);
        assert_eq!(fitting(&"x".repeat(100), 10, 8).len(), 1, "too long a line is left out");
    }
}
