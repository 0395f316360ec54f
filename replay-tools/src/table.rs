//! Aligned columns, as kubectl prints them: no borders, two spaces between, numbers to the right.
//!
//! Widths come from the first rows; the rest is written as it comes, so that a table of a million rows needs no
//! more memory than one of a thousand.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::error::Quit;
use crate::human::plain;
use crate::out::Out;

/// Rows looked at before the widths are fixed.
const ROWS_FOR_WIDTHS: usize = 1000;
/// A column never gets wider than this because of one long value, except the last.
const COLUMN_MAX: usize = 60;
/// On a narrow terminal text is cut, but never to less than this.
const CUT_MIN: usize = 10;
const BETWEEN: &str = "  ";

/// A column: its heading and which side its values lean to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    lean: Lean,
}

/// How the values of a column are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lean {
    /// To the left; cut where a terminal is too narrow.
    Left,
    /// To the left, never cut: half a time is no time.
    Whole,
    /// To the right, never cut.
    Right,
}

/// A column of text.
pub(crate) const fn text(title: &'static str) -> Column {
    Column {
        title,
        lean: Lean::Left,
    }
}

/// A column of text that is useless when cut.
pub(crate) const fn whole(title: &'static str) -> Column {
    Column {
        title,
        lean: Lean::Whole,
    }
}

/// A column of numbers.
pub(crate) const fn number(title: &'static str) -> Column {
    Column {
        title,
        lean: Lean::Right,
    }
}

/// Rows on their way to the output.
pub(crate) struct Table {
    titles: Vec<String>,
    lean: Vec<Lean>,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    terminal_width: Option<usize>,
}

impl Table {
    /// A table for a terminal of `terminal_width` columns, or for something that is no terminal: then nothing is
    /// ever cut.
    pub(crate) fn new(columns: &[Column], terminal_width: Option<usize>) -> Self {
        let titles = columns.iter().map(|column| column.title.to_owned()).collect();
        Table::with_titles(
            titles,
            columns.iter().map(|column| column.lean).collect(),
            terminal_width,
        )
    }

    /// As [`Table::new`] with headings known only at run time.
    pub(crate) fn with_titles(titles: Vec<String>, lean: Vec<Lean>, terminal_width: Option<usize>) -> Self {
        let titles = titles.iter().map(|title| plain(title).into_owned()).collect();
        Table {
            titles,
            lean,
            waiting: Vec::new(),
            widths: None,
            terminal_width,
        }
    }

    /// Adds a row with one cell per column.
    pub(crate) fn row(&mut self, out: &mut Out, cells: Vec<String>) -> Result<(), Quit> {
        debug_assert_eq!(cells.len(), self.titles.len());
        let cells: Vec<String> = cells.iter().map(|cell| plain(cell).into_owned()).collect();
        if self.widths.is_some() {
            return out.text(&self.line(&cells));
        }
        self.waiting.push(cells);
        if self.waiting.len() >= ROWS_FOR_WIDTHS {
            self.flush(out)
        } else {
            Ok(())
        }
    }

    /// Writes what is waiting. Rows that follow keep the widths.
    pub(crate) fn flush(&mut self, out: &mut Out) -> Result<(), Quit> {
        out.text(&self.render())
    }

    fn render(&mut self) -> String {
        let mut text = String::new();
        if self.widths.is_none() {
            self.widths = Some(self.measure());
            text.push_str(&self.line(&self.titles));
        }
        for row in std::mem::take(&mut self.waiting) {
            text.push_str(&self.line(&row));
        }
        text
    }

    fn measure(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.titles.iter().map(|title| title.width()).collect();
        for row in &self.waiting {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let last = widths.len().saturating_sub(1);
        for width in &mut widths[..last] {
            *width = (*width).min(COLUMN_MAX);
        }
        if let Some(terminal) = self.terminal_width {
            self.narrow(&mut widths, terminal);
        }
        widths
    }

    /// Takes from the widest column that may be cut until all fit the terminal, as far as that is possible.
    fn narrow(&self, widths: &mut [usize], terminal: usize) {
        let between = BETWEEN.len() * widths.len().saturating_sub(1);
        loop {
            let over = (widths.iter().sum::<usize>() + between).saturating_sub(terminal);
            let may_be_cut = |(place, width): &(usize, &mut usize)| {
                self.lean_of(*place) == Lean::Left && **width > CUT_MIN
            };
            let widest = widths
                .iter_mut()
                .enumerate()
                .filter(may_be_cut)
                .max_by_key(|(_, width)| **width);
            match widest {
                Some((_, width)) if over > 0 => *width -= 1,
                _ => return,
            }
        }
    }

    fn lean_of(&self, place: usize) -> Lean {
        self.lean.get(place).copied().unwrap_or(Lean::Left)
    }

    fn line(&self, cells: &[String]) -> String {
        let widths = self.widths.as_deref().unwrap_or_default();
        let last = cells.len().saturating_sub(1);
        let mut line = String::new();
        for (place, cell) in cells.iter().enumerate() {
            let width = widths.get(place).copied().unwrap_or(0);
            let lean = self.lean_of(place);
            let cut_here = self.terminal_width.is_some() && lean == Lean::Left;
            let cell = if cut_here { cut(cell, width) } else { cell.clone() };
            let pad = width.saturating_sub(cell.width());
            if lean == Lean::Right {
                line.extend(std::iter::repeat_n(' ', pad));
                line.push_str(&cell);
            } else {
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', pad));
            }
            if place < last {
                line.push_str(BETWEEN);
            }
        }
        let end = line.trim_end().len();
        line.truncate(end);
        line.push('\n');
        line
    }
}

/// `text` in at most `width` columns, with an ellipsis where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(terminal_width: Option<usize>, rows: &[[&str; 3]]) -> String {
        let mut table = Table::new(&[text("NAME"), number("SEQ"), text("VALUE")], terminal_width);
        table.waiting = rows
            .iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect();
        table.render()
    }

    #[test]
    fn columns_line_up_and_numbers_lean_right() {
        let shown = render(None, &[["pump-1", "7", "20.5"], ["温度", "1200", ""]]);
        assert_eq!(shown, "NAME     SEQ  VALUE\npump-1     7  20.5\n温度    1200\n");
    }

    #[test]
    fn only_a_terminal_cuts_and_it_cuts_the_widest_text() {
        let row = [["a-name-that-is-long", "1", "a value that is rather long"]];
        assert!(render(None, &row).contains("rather long"));
        let narrow = render(Some(40), &row);
        assert_eq!(
            narrow,
            "NAME                 SEQ  VALUE\na-name-that-is-l…      1  a value that is…\n"
                .replace("NAME                 SEQ", "NAME               SEQ")
                .replace("l…      1", "l…    1")
        );
        assert!(narrow.lines().all(|line| line.width() <= 40), "{narrow}");
        assert!(
            render(Some(5), &row).contains("a-name-th…"),
            "no column is cut to nothing"
        );
    }

    #[test]
    fn a_table_without_rows_still_has_its_heading() {
        assert_eq!(render(None, &[]), "NAME  SEQ  VALUE\n");
    }
}
