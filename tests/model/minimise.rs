//! Makes a failing case small, and writes it as a test.

use std::time::{Duration, Instant};

use super::driver::Form;
use super::harness::{Backend, Failure, Script, run};
use super::ops::{Op, literal};
use super::random::Case;
use super::stack::{Item, Leaf, Meta, USUAL_TIME, What};

/// How long to try.
const PATIENCE: Duration = Duration::from_secs(60);

/// The smallest failing case that is found in a while, with its failure.
pub fn minimise(case: &Case, failure: Failure, backend: Backend) -> (Case, Failure) {
    let mut best = Best {
        case: case.clone(),
        failure,
        backend,
        until: Instant::now() + PATIENCE,
    };
    while best.round() && Instant::now() < best.until {}
    (best.case, best.failure)
}

struct Best {
    case: Case,
    failure: Failure,
    backend: Backend,
    until: Instant,
}

impl Best {
    /// Takes a smaller case when it fails, too.
    fn offer(&mut self, case: Case, ops: &[Op]) -> bool {
        if Instant::now() > self.until {
            return false;
        }
        match run(&case, Script::Fixed(ops), self.backend) {
            Ok(_) => false,
            Err(failure) => {
                self.case = case;
                self.failure = failure;
                true
            }
        }
    }

    fn round(&mut self) -> bool {
        let mut smaller = false;
        let mut size = (self.failure.ops.len() / 2).max(1);
        loop {
            let mut at = self.failure.ops.len();
            while at > 0 {
                let from = at.saturating_sub(size);
                let mut ops = self.failure.ops.clone();
                ops.drain(from..at.min(ops.len()));
                smaller |= self.offer(self.case.clone(), &ops);
                at = from.min(self.failure.ops.len());
            }
            if size == 1 {
                break;
            }
            size /= 2;
        }
        for layer in (0..=self.case.lowers.len()).rev() {
            smaller |= self.fewer_items(layer);
        }
        let mut at = 0;
        while self.case.lowers.len() > 1 && at < self.case.lowers.len() {
            let mut case = self.case.clone();
            case.lowers.remove(at);
            if self.offer_case(case) {
                smaller = true;
            } else {
                at += 1;
            }
        }
        smaller | self.simpler_forms()
    }

    fn offer_case(&mut self, case: Case) -> bool {
        let ops = self.failure.ops.clone();
        self.offer(case, &ops)
    }

    /// The upper counts as the layer behind the last lower.
    fn fewer_items(&mut self, layer: usize) -> bool {
        fn items(case: &mut Case, layer: usize) -> &mut Vec<Item> {
            match case.lowers.get_mut(layer) {
                Some(_) => &mut case.lowers[layer],
                None => &mut case.upper,
            }
        }
        let mut smaller = false;
        for at in (0..items(&mut self.case, layer).len()).rev() {
            let mut case = self.case.clone();
            items(&mut case, layer).remove(at);
            if self.offer_case(case) {
                smaller = true;
                continue;
            }
            let meta = Meta::default();
            if items(&mut self.case, layer)[at].meta != meta {
                let mut case = self.case.clone();
                items(&mut case, layer)[at].meta = meta;
                smaller |= self.offer_case(case);
            }
        }
        smaller
    }

    fn simpler_forms(&mut self) -> bool {
        let mut offers = vec![vec![Form::default()]];
        offers.extend(self.case.forms.iter().map(|form| vec![*form]));
        for (i, form) in self.case.forms.iter().enumerate() {
            let changes: [fn(&mut Form); 5] = [
                |form| form.char_marks = false,
                |form| form.redirect = false,
                |form| form.sync = false,
                |form| form.cold = false,
                |form| form.plus = false,
            ];
            for change in changes {
                let mut forms = self.case.forms.clone();
                change(&mut forms[i]);
                if forms[i] != *form {
                    offers.push(forms);
                }
            }
        }
        for forms in offers {
            if forms == self.case.forms {
                continue;
            }
            let mut case = self.case.clone();
            case.forms = forms;
            if self.offer_case(case) {
                return true;
            }
        }
        let mut case = self.case.clone();
        case.every = 1;
        self.case.every != 1 && self.offer_case(case)
    }
}

/// A case as the body of a regression test.
pub fn as_test(case: &Case, ops: &[Op]) -> String {
    let mut text = String::from("    check(\n        Stack::new()");
    for items in &case.lowers {
        text.push_str("\n            .lower(vec![");
        write_items(&mut text, items);
    }
    if !case.upper.is_empty() {
        text.push_str("\n            .upper(vec![");
        write_items(&mut text, &case.upper);
    }
    for form in &case.forms {
        text.push_str(&format!("\n            .form(&{:?})", form_words(form)));
    }
    if case.every != 1 {
        text.push_str(&format!("\n            .every({})", case.every));
    }
    text.push_str(",\n        &[\n");
    for op in ops {
        text.push_str(&format!("            {op},\n"));
    }
    text.push_str("        ],\n    );\n");
    text
}

fn form_words(form: &Form) -> Vec<&'static str> {
    [
        (form.char_marks, "char"),
        (form.redirect, "redirect"),
        (form.sync, "sync"),
        (form.cold, "cold"),
        (form.plus, "plus"),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .map(|(_, word)| *word)
    .collect()
}

fn write_items(text: &mut String, items: &[Item]) {
    for item in items {
        let at = literal(&item.at);
        let made = match &item.what {
            What::Dir => format!("dir({at})"),
            What::Leaf(Leaf::Symlink(target)) => format!("sym({at}, {})", literal(target)),
            What::Leaf(leaf) => format!("leaf({at}, Leaf::{leaf:?})"),
            What::Link(of) => format!("hard_link({at}, {})", literal(of)),
            What::White(form) => format!("white({at}, White::{form:?})"),
            What::Opaque(form) => format!("opaque({at}, Opaque::{form:?})"),
            What::Leftover => format!("leftover({at})"),
        };
        text.push_str(&format!("\n                {made}"));
        if let Some(mode) = item.meta.mode {
            text.push_str(&format!(".mode({mode:#o})"));
        }
        if item.meta.owner != (0, 0) {
            text.push_str(&format!(
                ".owner({}, {})",
                item.meta.owner.0, item.meta.owner.1
            ));
        }
        if item.meta.mtime != USUAL_TIME {
            text.push_str(&format!(
                ".mtime({}, {})",
                item.meta.mtime.0, item.meta.mtime.1
            ));
        }
        for (name, value) in &item.meta.xattrs {
            text.push_str(&format!(".xattr({}, {})", literal(name), literal(value)));
        }
        text.push(',');
    }
    text.push_str("\n            ])");
}
