#!/usr/bin/env bash
# Runs the core tests on supported Python/JAX pairs whose interpreter is here, each pair in an environment of its own.
#
#   tools/test_matrix.sh all [pytest arguments]       every pair
#   tools/test_matrix.sh newest [pytest arguments]    the newest JAX only, on the newest Python tested
set -u
cd "$(dirname "$0")/.." || exit 1
unset PYTHONDONTWRITEBYTECODE  # modules are compiled when they are first imported, not in every process again

pairs=("3.11 0.10.2" "3.12 0.11.2" "3.12 newest" "3.13 newest")
which=${1:-all}
[ $# -eq 0 ] || shift
case $which in
  all) ;;
  newest) tools/python.sh 3.13 >/dev/null 2>&1 && pairs=("3.13 newest") || pairs=("3.12 newest") ;;
  *) echo "usage: tools/test_matrix.sh all|newest [pytest arguments]" >&2; exit 2 ;;
esac

run_pair() {  # PYTHON JAX INTERPRETER [pytest arguments]
  local venv=".venvs/python$1-jax-$2" jax=(--upgrade jax jaxlib) interpreter=$3
  [ "$2" = newest ] || jax=("jax==$2" "jaxlib==$2")
  shift 3
  [ -x "$venv/bin/python" ] || "$interpreter" -m venv --clear "$venv" || return
  "$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --no-compile "${jax[@]}" -e '.[test]' || return
  "$venv/bin/python" -c 'import jax, sys; print("Python", sys.version.split()[0], "with JAX", jax.__version__)' || return
  "$venv/bin/python" -m pytest -n "${JOBS:-2}" --dist worksteal -m core "$@"
}

summary=""
ran=0
failed=0
for pair in "${pairs[@]}"; do
  read -r python jax <<<"$pair"
  if ! interpreter=$(tools/python.sh "$python" 2>/dev/null); then
    summary+="  Python $python, JAX $jax: not run, no such interpreter"$'\n'
  elif run_pair "$python" "$jax" "$interpreter" "$@"; then
    summary+="  Python $python, JAX $jax: passed"$'\n'
    ran=$((ran + 1))
  else
    summary+="  Python $python, JAX $jax: FAILED"$'\n'
    failed=$((failed + 1))
  fi
done
printf 'core tests:\n%s' "$summary"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ]
