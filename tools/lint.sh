#!/usr/bin/env bash
# Lints the modules of the repository, one line each, and fails if any fails.
#
#   tools/lint.sh                 every module but those under tools/
#   tools/lint.sh client api      only these, by folder
#   tools/lint.sh --fix [...]     also write what the linters can mend, formatting included
#
# Each module is seen as its users see it, outside the workspace. Runs from any directory.
set -euo pipefail

fix=()
if [ "${1-}" = --fix ]; then
  fix=(--fix)
  shift
fi

export GOWORK=off
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
linter=$(go -C tools/lint tool -n golangci-lint)

modules() {
  local file
  {
    git ls-files --cached --others --exclude-standard -- 'go.mod' '*/go.mod' 2>/dev/null ||
      find . -name go.mod -not -path '*/node_modules/*' | sed 's|^\./||'
  } | LC_ALL=C sort -u | while read -r file; do
    case "$file" in
      tools/*) ;;
      *) [ -e "$file" ] && dirname "$file" ;;
    esac
  done
}

if [ $# -gt 0 ]; then
  list=("$@")
else
  mapfile -t list < <(modules)
fi
if [ ${#list[@]} -eq 0 ]; then
  echo "no module found" >&2
  exit 1
fi

report=$(mktemp)
trap 'rm -f "$report"' EXIT
failed=0
for module in "${list[@]}"; do
  if [ ! -e "$root/$module/go.mod" ]; then
    echo "FAIL  $module: no go.mod there"
    failed=$((failed + 1))
    continue
  fi
  began=$SECONDS
  if (cd "$root/$module" && "$linter" run "${fix[@]}" ./...) >"$report" 2>&1; then
    echo "ok    $module  $((SECONDS - began))s"
  else
    echo "FAIL  $module  $((SECONDS - began))s"
    cat "$report"
    failed=$((failed + 1))
  fi
done
echo "$((${#list[@]} - failed)) modules clean, $failed with findings"
[ "$failed" -eq 0 ]
