//! Text from outside, made fit for an event, a log line or an error: one line, bounded.

/// Marks text that was cut.
const CUT: &str = "...";

/// The text without control characters and without those that reorder or hide what is shown, cut to
/// `most` bytes at a character's boundary.
pub(crate) fn one_line(text: &str, most: usize) -> String {
    let mut line = String::with_capacity(text.len().min(most));
    for character in text.chars().map(shown) {
        // Runs of what was replaced become one space.
        if character == ' ' && line.ends_with(' ') {
            continue;
        }
        line.push(character);
        if line.len() > most {
            break;
        }
    }
    if line.len() > most {
        let mut end = most.saturating_sub(CUT.len());
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(CUT);
    }
    line.trim().to_owned()
}

fn shown(character: char) -> char {
    let hides = matches!(
        character,
        '\u{200b}'..='\u{200f}' // zero width, directional marks
            | '\u{2028}'..='\u{202e}' // line separators, directional embeddings
            | '\u{2060}'..='\u{206f}' // invisible operators, directional isolates
            | '\u{feff}'
    );
    if character.is_control() || hides { ' ' } else { character }
}

/// An error and its sources, outermost first, as one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    const LONGEST_REASON_BYTES: usize = 300;
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text.push_str(": ");
            text.push_str(&source_text);
        }
        next = source.source();
    }
    one_line(&text, LONGEST_REASON_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_those_that_reorder_text_are_replaced() {
        assert_eq!(one_line("a\nb\r\n\tc\0d\u{1b}[31m", 100), "a b c d [31m");
        assert_eq!(one_line("safe\u{202e}txt.exe\u{200b}", 100), "safe txt.exe");
        assert_eq!(one_line("  ok  ", 100), "ok");
    }

    #[test]
    fn long_text_is_cut_at_a_characters_boundary() {
        let cut = one_line(&"é".repeat(1000), 1024);
        assert!(cut.len() <= 1024 && cut.len() > 1018, "{}", cut.len());
        assert!(cut.ends_with("é..."));
        assert_eq!(one_line(&"x".repeat(1024), 1024), "x".repeat(1024));
        assert_eq!(one_line(&"x".repeat(1025), 1024).len(), 1024);
    }
}
