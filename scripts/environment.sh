#!/usr/bin/env bash
# Make the Python environment and install the package, its extras and the development tools into it.
# Usage: [PYTHON=python3.11] scripts/environment.sh .venv
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${1:-.venv}"

new_enough() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; }

python=""
for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
        python="$candidate"
        break
    fi
done
if [ -z "$python" ]; then
    tried="${PYTHON:-python3}"
    found="$("$tried" --version 2>/dev/null || echo "not there")"
    echo "napari-nucseg needs Python 3.11 or newer, but $tried is $found:" \
        "install one and run 'make PYTHON=/path/to/python3.11'." >&2
    exit 1
fi

# An environment whose interpreter has gone or is too old is made anew.
if [ -e "$venv/pyvenv.cfg" ] && ! new_enough "$venv/bin/python"; then
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
    echo "Making the environment in $venv with $("$python" --version)"
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        # Debian ships venv and pip apart from Python.
        bash scripts/apt.sh "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    fi
    "$python" -m venv "$venv"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
# `--group` (the development tools) came with pip 25.1; Debian 12 has 23.
pip install --quiet --upgrade "pip>=25.1"
echo "Installing napari-nucseg with all its extras into $venv (some minutes at the first run)"
quiet=()
[ -t 1 ] || quiet=(--quiet)
pip install ${quiet[@]+"${quiet[@]}"} -c constraints.txt -e ".[all]" --group dev
touch "$venv/.installed"
