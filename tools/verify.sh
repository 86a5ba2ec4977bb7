#!/usr/bin/env bash
# Checks the models in spec/ with a model checker, which it installs from npm when it is
# missing, in the version and with the checksum of spec/package-lock.json.
# Arguments pick modules by a part of their names, for example: tools/verify.sh TimeCoupled
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../spec"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo "The model checker needs Node.js and npm. On Debian or Ubuntu: sudo apt-get install nodejs npm" >&2
  exit 1
fi

if ! cmp -s package-lock.json node_modules/installed.json; then
  npm ci --no-audit --no-fund --no-update-notifier --loglevel=error
  cp package-lock.json node_modules/installed.json # says which lock file is in there
fi
exec node verify.mjs "$@"
