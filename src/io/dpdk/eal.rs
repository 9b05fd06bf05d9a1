//! DPDK's environment: started once a process, before the workers.

use super::error::DpdkError;
use super::log;
use super::name::DeviceName;
use super::rights::{Rights, denied};
use std::ffi::{CStr, CString, c_char, c_int};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How the environment starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalConfig {
    /// Memory from hugepages, or from ordinary pages.
    pub hugepages: bool,
    /// Megabytes reserved for buffers and DPDK itself.
    pub memory_mb: u32,
    /// Distinguishes this process from others that use DPDK.
    pub file_prefix: String,
    /// Further arguments, as they are.
    pub args: Vec<String>,
}

/// The running environment. All that lives in it holds it by an [`Arc`], except frames, which have no room for one: the
/// memory of the pools therefore stays mapped until the process ends (see `drop`).
#[derive(Debug)]
pub(super) struct Eal {
    /// Whether it is ours to clean up, and can be (see `drop`).
    cleanup: bool,
    /// What DPDK said while it started and looked for PCI devices.
    pub said: String,
}

struct State {
    used: bool,
    running: Weak<Eal>,
}

static STATE: Mutex<State> = Mutex::new(State { used: false, running: Weak::new() });

impl Eal {
    /// Starts the environment.
    ///
    /// # Errors
    /// [`DpdkError`] if it was started before, or lacks memory or permission, or refuses an argument.
    pub fn start(config: &EalConfig, devices: &[DeviceName]) -> Result<Arc<Self>, DpdkError> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.used {
            return Err(DpdkError::AlreadyStarted);
        }
        if config.hugepages {
            enough_hugepages(Path::new("/sys/kernel/mm/hugepages"), u64::from(config.memory_mb))?;
        }
        let mut argv = Vec::new();
        for argument in arguments(config, devices, &cpus()) {
            let c = CString::new(argument.clone()).map_err(|_| DpdkError::BadArgument { argument })?;
            // DPDK keeps pointers into its arguments, so they live as long as it does: for ever.
            argv.push(c.into_raw());
        }
        let argc = argv.len() as c_int;
        argv.push(std::ptr::null_mut());

        state.used = true;
        log::divert();
        // SAFETY: `argv` holds `argc` strings and a null pointer; this is the first and only call in this process, by
        // STATE; DPDK may reorder the array, which is ours.
        let done = unsafe { dpdk_sys::rte_eal_init(argc, argv.as_mut_ptr()) };
        if done < 0 {
            let why = log::said(&errno_text());
            return Err(if denied(&why) && !Rights::own().all() {
                let needs = "as root".into();
                DpdkError::NoPermission { what: "DPDK did not start".into(), needs, why }
            } else {
                DpdkError::Eal { why }
            });
        }
        log::divert_libraries();
        let eal = Arc::new(Self { cleanup: config.hugepages, said: log::said("no reason was given") });
        state.running = Arc::downgrade(&eal);
        Ok(eal)
    }
}

#[cfg(feature = "capsule")]
impl Eal {
    /// Lets another runtime start the environment by `start`, which then is its to clean up.
    ///
    /// # Errors
    /// [`DpdkError`] if it was started before, or `start` fails.
    pub fn hosted<T, E: std::fmt::Display>(
        start: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Arc<Self>, T), DpdkError> {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        if state.used {
            return Err(DpdkError::AlreadyStarted);
        }
        state.used = true;
        log::divert();
        let started = start().map_err(|error| {
            let unsaid = error.to_string();
            let said = log::said(&unsaid);
            DpdkError::Eal { why: if said == unsaid { said } else { format!("{unsaid} ({said})") } }
        })?;
        log::divert_libraries();
        let eal = Arc::new(Self { cleanup: false, said: log::said("no reason was given") });
        state.running = Arc::downgrade(&eal);
        Ok((eal, started))
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // A frame may still be on its way (in a ring of a worker that was stopped, on a thread that ends later), and dies
        // by writing to its pool. With `--in-memory`, rte_eal_cleanup leaves all memory mapped, so that stays sound.
        // With `--no-huge` it would unmap it; there, nothing is left that the end of the process doesn't clean up.
        if self.cleanup {
            // SAFETY: the environment runs, and all ports are closed, since each holds an Arc of it.
            unsafe { dpdk_sys::rte_eal_cleanup() };
        }
    }
}

/// Gives the calling thread an identity in DPDK, as long as the value lives: without one, each allocation and each free
/// goes to the shared ring of the pool instead of the thread's own cache.
#[derive(Debug)]
pub struct RegisteredThread {
    /// Whether the identity is ours to give back (the thread that started DPDK has one for ever).
    registered: bool,
    _eal: Arc<Eal>,
    /// The identity is the thread's: this must not go to another.
    _here: PhantomData<*mut ()>,
}

/// Registers the calling thread with DPDK. A worker does this before its first turn.
///
/// # Errors
/// [`DpdkError`] if DPDK isn't running or has no identity left (128 with Debian's).
pub fn register_thread() -> Result<RegisteredThread, DpdkError> {
    let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = state.running.upgrade().ok_or(DpdkError::NotStarted)?;
    // SAFETY: reads a thread-local.
    let known = unsafe { dpdk_sys::steerage_lcore_id() } != dpdk_sys::LCORE_ID_ANY;
    if !known {
        log::forget();
        // SAFETY: the environment runs, by `eal`.
        if unsafe { dpdk_sys::rte_thread_register() } < 0 {
            return Err(DpdkError::Thread { why: log::said(&errno_text()) });
        }
    }
    Ok(RegisteredThread { registered: !known, _eal: eal, _here: PhantomData })
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        if self.registered {
            // SAFETY: the environment runs, by `_eal`, and this thread was registered: the value can't change threads.
            unsafe { dpdk_sys::rte_thread_unregister() };
        }
    }
}

/// The arguments of rte_eal_init. `cpus` is the set of CPUs that this process may use, as a list.
fn arguments(config: &EalConfig, devices: &[DeviceName], cpus: &str) -> Vec<String> {
    let mut args = vec!["steerage".to_owned()];
    let mut add = |words: &[&str]| args.extend(words.iter().map(|w| (*w).to_owned()));
    if config.hugepages {
        add(&["--in-memory"]);
    } else {
        add(&["--no-huge", "--no-shconf"]);
    }
    add(&["-m", &config.memory_mb.to_string(), "--file-prefix", &config.file_prefix, "--no-telemetry"]);
    add(&["--log-level", "*:warning"]);
    if !config.args.iter().any(|a| a.starts_with("-l") || a.starts_with("-c") || a.starts_with("--lcores")) {
        // One lcore, free to move: DPDK would start a thread on each CPU and pin this one to the first, and all threads
        // started from it would inherit that.
        add(&["--lcores", &format!("0@({cpus})")]);
    }
    let mut pci = false;
    for device in devices {
        if let Some(address) = device.pci_with_arguments() {
            add(&["-a", &address]);
            pci = true;
        }
    }
    if !pci {
        add(&["--no-pci"]);
    }
    args.extend(config.args.iter().cloned());
    args
}

/// The CPUs that this thread may run on: `0,1,5`.
fn cpus() -> String {
    // SAFETY: all bytes zero is the empty set.
    let mut set: dpdk_sys::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is writable and of the size that is given.
    let got = unsafe { dpdk_sys::sched_getaffinity(0, size_of::<dpdk_sys::cpu_set_t>(), &raw mut set) };
    let words = set.__bits.iter().enumerate();
    let all = words.flat_map(|(w, &bits)| {
        (0..64).filter(move |b| bits >> b & 1 == 1).map(move |b| (w * 64 + b).to_string())
    });
    let list = all.collect::<Vec<_>>().join(",");
    if got != 0 || list.is_empty() { "0".into() } else { list }
}

/// Checks that hugepages of all sizes together have `wanted_mb` left. `root` is sysfs's directory of them.
fn enough_hugepages(root: &Path, wanted_mb: u64) -> Result<(), DpdkError> {
    let number = |path: &Path| {
        std::fs::read_to_string(path).ok().and_then(|s| s.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let mut free_kb = 0;
    let mut default = None;
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kb) = name
            .strip_prefix("hugepages-")
            .and_then(|n| n.strip_suffix("kB"))
            .and_then(|n| n.parse::<u64>().ok())
        else {
            continue;
        };
        free_kb += kb * number(&entry.path().join("free_hugepages"));
        if kb == 2048 {
            default = Some(number(&entry.path().join("nr_hugepages")));
        }
    }
    if free_kb / 1024 >= wanted_mb {
        return Ok(());
    }
    let missing = wanted_mb - free_kb / 1024;
    Err(DpdkError::NoHugepages {
        wanted_mb,
        free_mb: free_kb / 1024,
        pages: default.unwrap_or(0) + missing.div_ceil(2),
    })
}

/// The text of this thread's rte_errno.
pub(super) fn errno_text() -> String {
    // SAFETY: reads a thread-local.
    error_text(unsafe { dpdk_sys::steerage_errno() })
}

/// The text of a DPDK return code of either sign.
pub(super) fn error_text(code: c_int) -> String {
    // SAFETY: any number is allowed.
    let text: *const c_char = unsafe { dpdk_sys::rte_strerror(code.saturating_abs()) };
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY: rte_strerror gives a NUL-terminated string that lives until this thread's next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "eal_tests.rs"]
mod tests;
