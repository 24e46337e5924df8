//! What a process that serves asks of the system before it holds anybody's data.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// As many file handles as the system lets us have, and no image of our memory on any disk.
pub fn prepare() {
    // Each of these only helps; where the system refuses, the server is as it was.
    let handles = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: handles.maximum, ..handles });
    // A core dump would hold keys, prompts and code. The limit stops files, the flag also what is piped to a program.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn no_core_is_dumped_and_handles_are_many() {
        prepare();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let handles = getrlimit(Resource::Nofile);
        assert_eq!(handles.current, handles.maximum);
    }
}
