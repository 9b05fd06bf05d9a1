# Sourced by the other scripts: installs what is missing on a bare Debian machine, and nothing when all is there.
# shellcheck shell=bash

# Packages for building (DPDK, bindgen), for the laboratory, and for the tests.
STEERAGE_PACKAGES=(
    build-essential ca-certificates curl pkg-config
    clang libclang-dev libdpdk-dev libbpf-dev linux-libc-dev
    iproute2 ethtool procps util-linux kmod nginx-light wrk python3
)
STEERAGE_TEST_PACKAGES=(python3-pytest python3-scapy tshark git nftables)

# Installs the Debian packages given that are missing.
steerage_packages() {
    local missing=() package
    for package in "$@"; do
        if ! dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
            missing+=("$package")
        fi
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then
        echo "these packages are missing, and only root can install them: ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}"
    # The system's nginx must not start: the laboratory runs its own. A subshell, so that the rule goes however it ends.
    (
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            trap 'exit 130' INT
            trap 'exit 143' TERM
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    )
}

# Puts cargo on the path; installs Rust by rustup if there is none.
steerage_rust() {
    if [[ -d $HOME/.cargo/bin ]]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo >/dev/null; then
        echo "installing Rust"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --component clippy,rustfmt || return 1
        PATH=$HOME/.cargo/bin:$PATH
    fi
}
