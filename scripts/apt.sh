#!/usr/bin/env bash
# Install the given Debian packages if any is missing; without the rights to, say which command does it and fail.
# Does nothing on systems without apt. Usage: scripts/apt.sh PACKAGE...
set -euo pipefail

command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || exit 0

missing=()
for package in "$@"; do
    status="$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)"
    # The time_t transition renamed libraries: libglib2.0-0t64 stands for libglib2.0-0.
    renamed="$(dpkg-query -W -f '${db:Status-Status}' "${package}t64" 2>/dev/null || true)"
    if [ "$status" != installed ] && [ "$renamed" != installed ]; then
        missing+=("$package")
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "System libraries are missing; this command installs them:" >&2
        echo "  sudo apt-get update && sudo apt-get install --no-install-recommends -y ${missing[*]}" >&2
        exit 3
    fi
fi

echo "Installing the system packages ${missing[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
}
if ! install 2>/dev/null; then
    "${as_root[@]}" apt-get -qq update
    install
fi
