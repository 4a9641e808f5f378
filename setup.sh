#!/bin/sh
# Sets up ovseg in a virtual environment of its own.
#   sh setup.sh                    to segment with the built-in model and exported ones: no torch
#   sh setup.sh --torch cuda|cpu   to use all models and train: torch as PyPI has it, with CUDA on
#                                  Linux, or the smaller build for processors from pytorch.org
#   sh setup.sh dev                to test and change it: everything
# The environment is .venv, or what $VENV names; $PYTHON chooses the interpreter (3.10 or later).
set -eu
cd "$(dirname "$0")"
venv=${VENV:-.venv}
python=${PYTHON:-python3}
extras=
torch=
while [ $# -gt 0 ]; do
    case $1 in
        --torch) torch=${2:-none}; [ $# -eq 1 ] || shift ;;
        --torch=*) torch=${1#--torch=} ;;
        -*) echo "setup.sh: no option $1; see its first lines" >&2; exit 2 ;;
        *) extras=$extras,$1 ;;
    esac
    shift
done
case $torch in
    "") ;;
    cpu | cuda) extras=torch,onnx$extras ;;
    *) echo "setup.sh: --torch takes cpu or cuda" >&2; exit 2 ;;
esac

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Debian's python3 comes without the part of venv that brings pip.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    as_root apt-get update -qq
    as_root apt-get install -y -qq python3-venv
fi
"$python" -c 'import sys; v = sys.version_info[:2]; sys.exit(
    None if v >= (3, 10) else f"ovseg needs Python 3.10 or later, not {v[0]}.{v[1]}: set PYTHON")'
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
set -- --python "$venv/bin/python" --editable ".${extras:+[${extras#,}]}"
if [ "$torch" = cpu ]; then
    "$venv/bin/uv" pip install --torch-backend cpu "$@" || {
        echo "setup.sh: pytorch.org cannot be reached? sh setup.sh --torch cuda takes PyPI's torch" >&2
        exit 1
    }
else
    "$venv/bin/uv" pip install "$@"
fi
