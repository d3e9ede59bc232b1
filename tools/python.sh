#!/usr/bin/env bash
# Prints the path of an interpreter that this project supports: CPython 3.11 to 3.14 that runs and can make a venv.
#
#   tools/python.sh              $PYTHON, else python3, else python3.13, 3.12, 3.11, 3.14, python
#   tools/python.sh 3.13 3.12    the first of these versions that is here
#
# Where there is none it lists the interpreters that it found and exits with 1.
set -u

# pyenv's shims run only the selected versions: select, after the user's own choice, every one that could do.
if command -v pyenv >/dev/null 2>&1; then
  selected=$(pyenv version-name 2>/dev/null)
  installed=$(pyenv versions --bare 2>/dev/null | grep -E '^3\.1[1-4]\.[0-9]+$')
  PYENV_VERSION=$(printf '%s\n' $selected $installed | paste -sd: -)
  export PYENV_VERSION
fi

# One line about an interpreter: version (3.12.1), verdict (ok or what is missing), path behind any shim.
describe() {
  local answer
  answer=$("$1" -E -s -c '
import sys
version = "%d.%d.%d" % sys.version_info[:3]
try:
    import venv, ensurepip
    verdict = "ok"
except ImportError:
    verdict = "has no venv module (on Debian and Ubuntu: install python3-venv)"
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    verdict = "is outside 3.11 to 3.14"
elif sys.implementation.name != "cpython":
    verdict = "is not CPython"
print("|".join([version, verdict, sys.executable]))
' </dev/null 2>/dev/null) && echo "$answer" || echo "|does not run|$1"
}

if [ $# -gt 0 ]; then
  names=$(printf 'python3 python%s python ' "$@")
else
  names="${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python"
fi

found=""
for version in "${@:-any}"; do
  for name in $names; do
    # A name can stand on PATH several times, and the first may be a shim that fails: try them all.
    while IFS= read -r candidate; do
      IFS='|' read -r actual verdict path <<<"$(describe "$candidate")"
      if [ "$verdict" = ok ] && { [ "$version" = any ] || [ "${actual%.*}" = "$version" ]; }; then
        echo "$path"
        exit 0
      fi
      found+="  $candidate: ${actual:+Python $actual }${verdict#ok}"$'\n'
    done < <(type -ap "$name")
    [ "$name" != "${PYTHON:-}" ] || echo "PYTHON=$PYTHON cannot be used; trying others" >&2
  done
done

{
  [ $# -gt 0 ] && echo "No Python $* that can be used was found." || echo "No Python from 3.11 to 3.14 that can be used was found."
  [ -n "$found" ] && { echo "Found:"; printf '%s' "$found" | sort -u; } || echo "Found none at all."
  echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..."
} >&2
exit 1
