# Sourced by the other scripts: installs what is missing on a bare Debian machine, and nothing when all is there.
# shellcheck shell=bash

# Packages for building (DPDK, bindgen), for the laboratory, and for the tests.
STEERAGE_PACKAGES=(
    build-essential ca-certificates curl pkg-config
    clang libclang-dev libdpdk-dev libbpf-dev linux-libc-dev
    iproute2 ethtool procps util-linux kmod nginx-light wrk python3
)
STEERAGE_TEST_PACKAGES=(python3-pytest python3-scapy tshark git)

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
    # The system's nginx must not start: the laboratory runs its own.
    local policy=/usr/sbin/policy-rc.d made=
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made=1
    fi
    local failed=0
    {
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    } || failed=1
    if [[ $made ]]; then
        rm -f "$policy"
    fi
    return "$failed"
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
