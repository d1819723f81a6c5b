//! The shared libraries: Neap's, built when needed, and Debian's packages of others.

use std::io;
use std::path::PathBuf;
use std::process::Command;

/// A library to preload.
#[derive(Clone, Debug)]
pub struct Library {
    /// Its name in tables.
    pub name: &'static str,
    /// None for the C library's own malloc.
    pub path: Option<PathBuf>,
}

/// Neap's name.
pub const NEAP: &str = "neap";

/// Debian's: name, package and file.
const PEERS: &[(&str, &str, &str)] = &[
    ("mimalloc", "libmimalloc2.0", "libmimalloc.so.2"),
    ("jemalloc", "libjemalloc2", "libjemalloc.so.2"),
    ("tcmalloc", "libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"),
];

/// Where Debian puts libraries for x86_64.
const FOLDER: &str = "/usr/lib/x86_64-linux-gnu";

impl Library {
    /// Neap's, built by cargo.
    pub fn neap() -> io::Result<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        // A bench or test program lies below cargo's build folder, which has a marker file.
        let own = std::env::current_exe()?;
        let target =
            own.ancestors().take(5).find(|folder| folder.join("CACHEDIR.TAG").exists()).map(PathBuf::from);
        let target = target.unwrap_or_else(|| root.join("target"));
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--release", "-p", "neap-preload", "--target-dir"]);
        let built = cargo.arg(&target).current_dir(&root).status()?;
        if !built.success() {
            return Err(io::Error::other("neap-preload does not build"));
        }
        let path = target.join("release/libneap_preload.so");
        Ok(Self { name: NEAP, path: Some(path.canonicalize()?) })
    }

    /// The C library.
    pub fn glibc() -> Self {
        Self { name: "glibc", path: None }
    }

    /// The peers that are installed; prints a line on stderr for each that is not.
    pub fn peers() -> Vec<Self> {
        let find = |&(name, package, file): &(&'static str, &str, &str)| {
            let path = PathBuf::from(FOLDER).join(file);
            if !path.exists() {
                eprintln!("{name} is left out: apt-get install {package}");
                return None;
            }
            Some(Self { name, path: Some(path) })
        };
        PEERS.iter().filter_map(find).collect()
    }

    /// Neap, the C library and the peers.
    pub fn all() -> io::Result<Vec<Self>> {
        Ok([Self::neap()?, Self::glibc()].into_iter().chain(Self::peers()).collect())
    }

    /// A command that runs with the library.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_remove("LD_PRELOAD");
        if let Some(path) = &self.path {
            command.env("LD_PRELOAD", path);
        }
        command
    }
}
