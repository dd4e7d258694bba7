//! A plan as people read it: each file with its path, what to run next, what to know.

use super::{diff, machine::Machine, plan::Plan};

/// Columns of a note.
const WIDTH: usize = 100;

/// Returns the plan, and what `--write` would do to files that are there.
pub(super) fn printed(machine: &Machine, plan: &Plan, client: &str) -> String {
    let mut out = String::new();
    for file in &plan.files {
        out.push_str(&format!("=== {} ===\n{}\n", machine.shown(&file.path), file.fresh));
    }
    if !plan.flags.is_empty() {
        out.push_str(&format!("=== arguments ===\n{}\n\n", plan.flags.join("\n")));
    }
    for file in plan.files.iter().filter(|file| file.before.is_some()) {
        let name = machine.shown(&file.path);
        match &file.after {
            Err(what) => out.push_str(&format!("=== {name} is there, and cannot be merged ===\n{what}\n\n")),
            Ok(after) => {
                let difference = diff::unified(&name, file.before.as_deref(), Some(after));
                if difference.is_empty() {
                    out.push_str(&format!("=== {name} has it already ===\n\n"));
                } else {
                    out.push_str(&format!("=== {name} is there; --write would change ===\n{difference}\n"));
                }
            }
        }
    }
    out.push_str(&what_follows(plan));
    if !plan.files.is_empty() {
        out.push_str(&format!(
            "\nWith --write this is merged into what is there, and that is kept as a backup;\n\
             `stopover client {client} --undo` takes it back.\n"
        ));
    }
    out
}

/// Returns what to run next and what to know.
pub(super) fn what_follows(plan: &Plan) -> String {
    let mut out = String::new();
    if !plan.next.is_empty() {
        out.push_str(&format!("=== next ===\n{}\n\n", plan.next.join("\n")));
    }
    if !plan.notes.is_empty() {
        out.push_str("=== to know ===\n");
        for note in &plan.notes {
            out.push_str(&wrapped(note));
        }
    }
    out
}

/// Returns a note as an item of a list, in lines of at most [`WIDTH`] columns where its words allow.
fn wrapped(note: &str) -> String {
    let mut out = String::from("-");
    let mut column = out.len();
    for word in note.split(' ') {
        if column + 1 + word.len() > WIDTH {
            out.push_str("\n ");
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + word.len();
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_wrapped_and_loses_no_word() {
        let note = "word ".repeat(50);
        let text = wrapped(note.trim());
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 50);
        assert!(text.starts_with("- word") && text.contains("\n  word"));
    }
}
