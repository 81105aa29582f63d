//! The guide: what unionmount promises, how it is used, and how to work on it.
//!
//! The pages are the Markdown files in `src/guide/`, which refer to each other by relative links.

/// Defines a module that shows a page of the guide. The link definitions come before the page: the first definition of
/// a label counts, so that a reference such as `[limits]` leads to the module.
macro_rules! pages {
    ($($(#[$attribute:meta])* $name:ident $file:literal)*) => {$(
        #[doc = include_str!($file)]
        pub mod $name {}
    )*};
}

pages! {
    semantics "guide/semantics.md"
    limits "guide/limits.md"
    options "guide/options.md"
    transports "guide/transports.md"
    layers "guide/layers.md"
    store "guide/store.md"
    engines "guide/engines.md"
    performance "guide/performance.md"
    testing "guide/testing.md"
    design "guide/design.md"
    contributing "guide/contributing.md"
    changelog "guide/changelog.md"
}
