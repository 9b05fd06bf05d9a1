//! Finds the system's DPDK, makes Rust bindings from its headers and compiles the shims for its inline functions.

use std::env;
use std::path::PathBuf;

/// Functions that are called as they are.
const FUNCTIONS: &[&str] = &[
    "if_nametoindex",
    "rte_dev_probe",
    "rte_eal_cleanup",
    "rte_eal_init",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_close",
    "rte_eth_dev_configure",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_info_get",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_link_get_nowait",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_get",
    "rte_eth_tx_queue_setup",
    "rte_log_cur_msg_loglevel",
    "rte_mempool_avail_count",
    "rte_openlog_stream",
    "rte_pktmbuf_pool_create",
    "rte_strerror",
    "rte_thread_register",
    "rte_thread_unregister",
    "sched_getaffinity",
    "sched_setaffinity",
    "steerage_.*",
    // What only `capsule-ffi` calls.
    "rte_eth_allmulticast_disable",
    "rte_eth_promiscuous_disable",
    "rte_mempool_in_use_count",
    "rte_mempool_lookup",
    "rte_pktmbuf_free_bulk",
    "rte_socket_count",
    "rte_socket_id",
    "rte_socket_id_by_idx",
    "rte_thread_set_affinity",
];

const TYPES: &[&str] =
    &["rte_eth_conf", "rte_eth_dev_info", "rte_eth_link", "rte_eth_stats", "rte_mbuf", "rte_mempool"];

const CONSTANTS: &[&str] = &[
    "LCORE_ID_ANY",
    "RTE_ETH_LINK_UP",
    "RTE_ETH_SPEED_NUM_UNKNOWN",
    "RTE_LOG_ERR",
    "RTE_MAX_NUMA_NODES",
    "RTE_MBUF_DEFAULT_BUF_SIZE",
    "RTE_MBUF_DEFAULT_DATAROOM",
    "RTE_PKTMBUF_HEADROOM",
    "STEERAGE_.*",
];

/// Packed structures that hold aligned ones, which Rust can't express. Nothing here looks into them.
const OPAQUE: &str = "rte_arp_ipv4|rte_arp_hdr|rte_l2tpv2_combined_msg_hdr|rte_gtp_psc_generic_hdr";

fn main() {
    for file in ["wrapper.h", "shims.c"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let dpdk = match pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk")
    {
        Ok(dpdk) => dpdk,
        Err(why) => panic!(
            "DPDK 22.11 or later was not found by pkg-config. On Debian, install it with `apt-get install libdpdk-dev \
             clang pkg-config`, or build Steerage without it: `--no-default-features`.\n{why}"
        ),
    };
    // pkg-config drops what isn't a path or a definition, and the compiler must see the same `-march` and forced
    // include as DPDK's own build did, or inline functions differ from the library.
    let flags = flags();

    let mut bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(&flags)
        .clang_arg("-D_GNU_SOURCE")
        .opaque_type(OPAQUE)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .derive_default(true)
        .use_core();
    for name in FUNCTIONS {
        bindings = bindings.allowlist_function(name);
    }
    for name in TYPES {
        bindings = bindings.allowlist_type(name);
    }
    for name in CONSTANTS {
        bindings = bindings.allowlist_var(name);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
    let made = bindings
        .generate()
        .unwrap_or_else(|why| panic!("no bindings could be made from DPDK's headers: {why}"));
    made.write_to_file(&out).unwrap_or_else(|why| panic!("{}: {why}", out.display()));

    let mut shims = cc::Build::new();
    shims.file("shims.c").define("_GNU_SOURCE", None).opt_level(2).warnings(true).extra_warnings(false);
    for flag in &flags {
        shims.flag(flag);
    }
    shims.compile("steerage_dpdk_shims");

    // Drivers are plugins that rte_eal_init loads from DPDK's own directory: they need no mention here.
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for library in ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
}

/// What `pkg-config --cflags libdpdk` says, word by word.
fn flags() -> Vec<String> {
    let pkg_config = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = std::process::Command::new(&pkg_config).args(["--cflags", "libdpdk"]).output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
        }
        Ok(output) => panic!("{pkg_config} --cflags libdpdk: {}", String::from_utf8_lossy(&output.stderr)),
        Err(why) => panic!("{pkg_config}: {why}"),
    }
}
