//! Lines on standard error, which in a server process is its log.

/// Writes `text` as one line in one system call, so that lines of several processes do not mix.
pub fn line(text: &str) {
    let line = format!("zenith: {}\n", text.replace('\n', " "));
    // SAFETY: the pointer and the length are those of one live string. There is nobody to tell if
    // it fails.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
