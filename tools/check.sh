#!/usr/bin/env bash
# The checks that need no linter: formatting, tidy modules, cross-builds without cgo,
# golden vectors where the compiler may fuse multiply and add, and no test code linked
# into what users import.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() { echo "-- $*"; }
modules() { go list -m -f '{{.Dir}}'; }

step "formatting"
unformatted=$(git ls-files '*.go' | grep -v -E '\.pb\.go$|\.connect\.go$' | xargs gofmt -l)
[ -z "$unformatted" ] || { echo "not gofmt-ed:" "$unformatted" >&2; exit 1; }

step "modules are tidy and stand alone"
modules | while read -r module; do
  (cd "$module" && GOWORK=off go mod tidy -diff && GOWORK=off go build ./...)
done

step "builds without cgo"
for target in linux/amd64 darwin/arm64 windows/amd64; do
  echo "   $target"
  modules | while read -r module; do
    (cd "$module" && CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build ./...)
  done
done

step "golden vectors under GOAMD64=v3"
if [ "$(go env GOARCH)" = amd64 ]; then
  GOAMD64=v3 go test . ./vectors/...
else
  echo "   left out: this machine is $(go env GOARCH), which fuses by itself"
fi

step "no test code in what users import"
modules | while read -r module; do
  cd "$module"
  go list -f '{{if ne .Name "main"}}{{.ImportPath}}{{end}}' ./... | { grep -v -E 'test$|/bench/|/internal/' || true; } |
    while read -r package; do
      if go list -deps "$package" | grep -qx testing; then
        echo "$package links the testing package" >&2
        exit 1
      fi
    done
done

step "a program that uses the core links nothing else"
foreign=$(go list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' . | grep -v '^github.com/throttlekit/throttlekit-go$' || true)
[ -z "$foreign" ] || { echo "the core imports" "$foreign" >&2; exit 1; }

echo "all checks passed"
