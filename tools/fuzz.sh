#!/usr/bin/env bash
# Runs every fuzz target of the repository in turn.
#
#   tools/fuzz.sh [20s]     time for each target
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for file in $(git grep -l '^func Fuzz' -- '*_test.go'); do
  for target in $(grep -o '^func Fuzz[A-Za-z0-9_]*' "$file" | sed 's/^func //'); do
    echo "== $(dirname "$file") $target"
    (cd "$(dirname "$file")" && go test -run '^$' -fuzz "^$target\$" -fuzzminimizetime 5x -fuzztime "${1:-20s}" .)
  done
done
