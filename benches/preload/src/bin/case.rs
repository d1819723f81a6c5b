//! Runs one case: `case NAME`. It exits with 0 if all was as it should be.

fn main() {
    // Ends a case that hangs.
    // SAFETY: no pointers.
    unsafe { libc::alarm(60) };
    let name = std::env::args().nth(1).expect("a case");
    (preload::cases::find(&name).expect("a known case").run)();
}
