//! The memory limit of the process's control group, versions 1 and 2.

use crate::platform;
use core::ffi::CStr;

/// Room for a path, or for the beginning of a file.
const BYTES: usize = 4096;

/// Reads the beginning of a file and returns the number of bytes, 0 if that fails.
type Read<'a> = &'a dyn Fn(&CStr, &mut [u8]) -> usize;

/// The lowest limit of the group and its parents, if there is one.
pub(super) fn limit() -> Option<usize> {
    lowest(&platform::read_file)
}

fn lowest(read: Read) -> Option<usize> {
    let mut text = [0; BYTES];
    let count = read(c"/proc/self/cgroup", &mut text);
    let lines = text[..count].split(|&byte| byte == b'\n');
    lines.filter_map(|line| limit_of_line(line, read)).min()
}

/// A line is `number:controllers:path`; without controllers it is version 2.
fn limit_of_line(line: &[u8], read: Read) -> Option<usize> {
    let mut parts = line.splitn(3, |&byte| byte == b':');
    let (controllers, mut path) = (parts.nth(1)?, parts.next()?);
    let (root, file) = match controllers {
        b"" => ("/sys/fs/cgroup", "/memory.max"),
        _ if controllers.split(|&byte| byte == b',').any(|name| name == b"memory") => {
            ("/sys/fs/cgroup/memory", "/memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mut least = None;
    loop {
        path = path.strip_suffix(b"/").unwrap_or(path);
        if let Some(limit) = limit_of_group(&[root.as_bytes(), path, file.as_bytes(), b"\0"], read) {
            least = Some(least.map_or(limit, |least: usize| least.min(limit)));
        }
        match path.iter().rposition(|&byte| byte == b'/') {
            Some(end) => path = &path[..end],
            None => return least,
        }
    }
}

/// The limit in one file; none for `max`, or for the number that means no limit.
fn limit_of_group(parts: &[&[u8]], read: Read) -> Option<usize> {
    let mut path = [0; BYTES];
    let mut length = 0;
    for part in parts {
        path.get_mut(length..length + part.len())?.copy_from_slice(part);
        length += part.len();
    }
    let mut text = [0; 32];
    let count = read(CStr::from_bytes_with_nul(&path[..length]).ok()?, &mut text);
    let number: u64 = core::str::from_utf8(&text[..count]).ok()?.trim().parse().ok()?;
    // Version 1 writes the largest multiple of a page for "no limit".
    (number < 1 << 60).then_some(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Option<usize> {
        lowest(&|path, out| {
            let found = files.iter().find(|file| file.0.as_bytes() == path.to_bytes());
            let text = found.map_or("", |file| file.1).as_bytes();
            let count = text.len().min(out.len());
            out[..count].copy_from_slice(&text[..count]);
            count
        })
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        let own = ("/sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(with(&[group, own]), None);
        let parent = ("/sys/fs/cgroup/a/memory.max", "1048576\n");
        assert_eq!(with(&[group, own, parent]), Some(1 << 20));
        let root = ("/sys/fs/cgroup/memory.max", "4096\n");
        assert_eq!(with(&[group, own, parent, root]), Some(4096));
        assert_eq!(with(&[("/proc/self/cgroup", "0::/\n"), root]), Some(4096));
    }

    #[test]
    fn version_1_is_read_too() {
        let group = ("/proc/self/cgroup", "5:cpu:/x\n4:hugetlb,memory:/x\n0::/x\n");
        let own = ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "8192\n");
        let none = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(with(&[group, none]), None);
        assert_eq!(with(&[group, own, none]), Some(8192));
    }

    #[test]
    fn nonsense_is_no_limit() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("/proc/self/cgroup", "0:")]), None);
        let long = format!("0::/{}\n", "x".repeat(4080));
        assert_eq!(with(&[("/proc/self/cgroup", &long)]), None);
        assert_eq!(with(&[("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "soon")]), None);
    }
}
