//! An error and what lies behind it, in one line for a log or a client.

use std::error::Error;

/// The messages of `error` and of its causes, joined by colons. A cause that the message before it
/// already quotes is not repeated.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it: {0}")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn causes_follow_once() {
        let cause = || io::Error::other("no space");
        assert_eq!(with_causes(&Outer(cause())), "cannot do it: no space");
        assert_eq!(with_causes(&Quoting(cause())), "cannot do it: no space");
    }
}
