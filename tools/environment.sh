# Sourced by the scripts beside it: makes .venv once, and again when pyproject.toml asks for other packages.
# `environment` installs opsin, `environment test` what its tests need as well. Afterwards $python is its Python.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

environment() {
    local extra=${1:+[$1]} base mark stamp
    if [ ! -x "$python" ]; then
        base=$(_find_python)
        echo "making .venv with $base" >&2
        "$base" -m venv .venv
    fi
    mark=.venv/installed-${1:-opsin}
    stamp=$(cksum < pyproject.toml)
    if [ ! -e "$mark" ] || [ "$(cat "$mark")" != "$stamp" ]; then
        echo "installing opsin$extra into .venv" >&2
        "$python" -m pip install --quiet --editable ".$extra" >&2
        echo "$stamp" > "$mark"
    fi
}

_find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "opsin needs Python 3.11 or newer (with venv); name one with PYTHON=..." >&2
    return 1
}
