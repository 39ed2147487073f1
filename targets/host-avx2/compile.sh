#!/usr/bin/env bash
# Compiles a model for this board:  ./compile.sh [MODEL] [options of `edgenext-tvm compile`]
# It finds the board by its own folder, so a copied folder compiles for the copy.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
tool=edgenext-tvm
if ! command -v "$tool" >/dev/null; then
  tool="$here/../../.venv/bin/edgenext-tvm"
  [ -x "$tool" ] || { echo "error: edgenext-tvm not found: activate its virtual environment, or run 'make install' in the repository" >&2; exit 2; }
fi
exec "$tool" compile "${1:-edgenext_xx_small}" --board "$here" "${@:2}"
