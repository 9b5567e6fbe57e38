# Sourced by the other scripts: `environment EXTRA` makes the environment in .venv when there is
# none, installs prunenas with the extra when pyproject.toml has changed since, and reuses it after.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment() {
  local extra=$1 stamp wanted
  if [ ! -x .venv/bin/python ]; then
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "prunenas needs Python 3.11 or newer as python3, found $(python3 --version)" >&2
      exit 2
    fi
    echo "making the environment in .venv" >&2
    python3 -m venv .venv
  fi
  stamp=.venv/.prunenas-$extra
  wanted=$(sha256sum pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing prunenas and what it needs (6 GB, once)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
    echo "$wanted" > "$stamp"
  fi
  PATH="$PWD/.venv/bin:$PATH"
}
