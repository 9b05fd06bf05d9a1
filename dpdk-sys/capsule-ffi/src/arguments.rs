//! DPDK's arguments: those of 19.11 in the words of 20.11 and later.

use std::ffi::{CStr, CString, c_char, c_int};

/// Arguments that have another name now.
const RENAMED: [(&CStr, &CStr); 2] = [(c"--master-lcore", c"--main-lcore"), (c"--pci-whitelist", c"--allow")];

/// Copies `argc` strings.
///
/// # Safety
/// `argv` points to so many pointers to strings.
pub unsafe fn read(argc: c_int, argv: *mut *mut c_char) -> Vec<CString> {
    // SAFETY: the caller's promise.
    let all = unsafe { std::slice::from_raw_parts(argv, argc as usize) };
    // SAFETY: the caller's promise, for each.
    all.iter().map(|argument| unsafe { CStr::from_ptr(*argument) }.to_owned()).collect()
}

/// `arguments` with today's names. What follows a name is a value and stays as it is.
pub fn renamed(mut arguments: Vec<CString>) -> Vec<CString> {
    for argument in &mut arguments {
        if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == argument.as_c_str()) {
            *argument = (*new).to_owned();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_become_new_ones_and_the_rest_stays() {
        let given = [
            c"app",
            c"--proc-type",
            c"primary",
            c"--pci-whitelist",
            c"0000:3b:00.0",
            c"--vdev",
            c"net_null0",
            c"--master-lcore",
            c"0",
            c"-l",
            c"0",
        ];
        let mut pointers: Vec<_> = given.iter().map(|a| a.as_ptr().cast_mut()).collect();
        // SAFETY: an array of so many strings.
        let read = unsafe { read(pointers.len() as c_int, pointers.as_mut_ptr()) };
        assert_eq!(read.iter().map(CString::as_c_str).collect::<Vec<_>>(), given);
        let mut wanted = given;
        (wanted[3], wanted[7]) = (c"--allow", c"--main-lcore");
        assert_eq!(renamed(read).iter().map(CString::as_c_str).collect::<Vec<_>>(), wanted);
    }
}
