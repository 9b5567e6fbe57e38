#!/usr/bin/env bash
# ruff, mypy, the import contract and pytest; with --slow the tests marked slow instead.
# What follows is handed to pytest.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment dev

if [ "${1:-}" = "--slow" ]; then
  exec python -m pytest -n 2 -m "slow and not gpu" "${@:2}"
fi
ruff check prunenas tests scripts
ruff format --check prunenas tests scripts
mypy
lint-imports
exec python -m pytest -n 2 "$@"
