#!/usr/bin/env bash
# Runs the tests of every module with the race detector, and fails if any module fails.
# Arguments go to `go test`, for example: tools/test.sh -run TestMemory
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
while read -r module; do
  (cd "$module" && go test -race -timeout 8m "$@" ./...) || status=1
done < <(go list -m -f '{{.Dir}}')
exit $status
