//! "Did you mean ..?": the known word that looks most like a wrong one.

/// Similarity (0 to 1, Jaro-Winkler) below which a suggestion would be a guess.
const LIKELY: f64 = 0.8;

/// The candidate most like `word`, when one is like it at all.
#[must_use]
pub(in crate::cli) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}
