//! Aborts a process that misused the heap: one line on stderr, then abort.

use crate::platform;
use core::fmt::{self, Write};

/// Reports what happened to `address` and aborts the process.
#[cold]
#[inline(never)]
pub(crate) fn abort_on_misuse(what: &str, address: usize) -> ! {
    report(format_args!("{what}: {address:#x}"));
    platform::abort()
}

/// Writes one line to standard error without allocating.
pub(crate) fn report(message: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; 200], len: 0 };
    // Writing to `line` cannot fail; a message that is too long is cut off.
    let _ = write!(line, "neap: {message}");
    line.bytes[line.len] = b'\n';
    platform::write_stderr(&line.bytes[..line.len + 1]);
}

struct Line {
    bytes: [u8; 200],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - 1 - self.len;
        let count = text.len().min(room);
        self.bytes[self.len..self.len + count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        Ok(())
    }
}
