//! Every case under Neap's shared library ends as it should.

use preload::cases;
use preload::library::Library;
use std::path::Path;

#[test]
fn every_case_ends_as_it_should() {
    let neap = Library::neap().expect("the library");
    let wrong: Vec<String> = cases::all()
        .filter_map(|case| {
            let output = cases::run(case, &neap, Path::new(env!("CARGO_BIN_EXE_case"))).expect("a process");
            cases::judge(case, &output).err()
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases::all().count(), wrong.join("\n"));
}
