#!/bin/sh
# Sets up ovseg in a virtual environment of its own.
#   sh setup.sh           to use it
#   sh setup.sh dev       to test and change it
# The environment is .venv, or what $VENV names; $PYTHON chooses the interpreter (3.10 to 3.12).
set -eu
cd "$(dirname "$0")"
venv=${VENV:-.venv}
python=${PYTHON:-python3}
extra=${1:-torch,onnx}  # ONNX Runtime starts the built-in model in a quarter of the time

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian's python3 comes without the part of venv that brings pip.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    as_root apt-get update -qq
    as_root apt-get install -y -qq python3-venv
fi
"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(
    None if (3, 10) <= v <= (3, 12) else f"ovseg needs Python 3.10 to 3.12, not {v[0]}.{v[1]}: set PYTHON")'
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$venv/bin/uv" pip install --python "$venv/bin/python" --editable ".[$extra]"
