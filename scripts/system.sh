#!/usr/bin/env bash
# The system libraries which Qt needs for napari's window (run) and for windows on a virtual screen (test).
# Usage: scripts/system.sh run|test
set -euo pipefail
cd "$(dirname "$0")"

for_qt=(
    libxcb-icccm4 libxcb-keysyms1 libxcb-cursor0 libxcb-shape0 libxcb-image0 libxcb-randr0 libxcb-render-util0
    libxkbcommon-x11-0 libegl1 libgl1 libopengl0 libgl1-mesa-dri libdbus-1-3 libfontconfig1 libglib2.0-0
)
for_tests=(xvfb xauth)

[ "$(uname -s)" = Linux ] || exit 0
case "${1:-run}" in
    run)
        # Without a display the demo runs headless and needs none of them.
        [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] || exit 0
        # A distribution may have the libraries from packages of other names: let napari try.
        bash ./apt.sh "${for_qt[@]}" || echo "Trying without them." >&2
        ;;
    test)
        bash ./apt.sh "${for_qt[@]}" "${for_tests[@]}"
        ;;
    *)
        echo "scripts/system.sh takes 'run' or 'test', not '$1'." >&2
        exit 2
        ;;
esac
