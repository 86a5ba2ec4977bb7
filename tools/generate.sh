#!/usr/bin/env bash
# Lints the .proto files under api/ and writes the Go code made from them beside them.
#
#   tools/generate.sh            lint, then write what changed
#   tools/generate.sh --check    lint, then only compare; exits 1 when the committed code is stale
#
# Runs from any directory and asks no schema or plugin registry.
set -euo pipefail

usage() {
  echo "usage: $0 [--check]" >&2
  exit 2
}

check=false
case "$#:${1-}" in
  0:) ;;
  1:--check) check=true ;;
  *) usage ;;
esac

# -modfile, by which the tools are pinned, is refused inside a workspace.
export GOWORK=off
cd "$(dirname "${BASH_SOURCE[0]}")/../api"

buf() { go tool -modfile=../tools/buf/go.mod buf "$@"; }

generated() { (cd "$1" && find . -type f \( -name '*.pb.go' -o -name '*.connect.go' \) | LC_ALL=C sort); }

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

buf lint
buf format --diff --exit-code
buf generate --output "$fresh"

# Only files that differ are touched, so that a second run changes nothing and a build meanwhile never misses a file.
stale=0
while read -r file; do
  cmp -s "$fresh/$file" "$file" && continue
  stale=$((stale + 1))
  echo "changed: api/${file#./}"
  if ! $check; then
    mkdir -p "$(dirname "$file")"
    cp "$fresh/$file" "$file"
  fi
done < <(generated "$fresh")
while read -r file; do
  [ -e "$fresh/$file" ] && continue
  stale=$((stale + 1))
  echo "no longer generated: api/${file#./}"
  $check || rm "$file"
done < <(generated .)

if $check && [ "$stale" -gt 0 ]; then
  echo "generated code is stale: run tools/generate.sh" >&2
  exit 1
fi
echo "generated code is up to date"
