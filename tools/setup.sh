#!/usr/bin/env bash
# Installs what the tests need and this machine lacks. Tests start servers of their own, on
# free ports and in temporary folders; here only the programs are installed.
# Where it may not install, it says what is missing and how to get it.
set -euo pipefail

has() { command -v "$1" >/dev/null; }

missing=()
has gcc || has cc || missing+=(gcc libc6-dev) # the race detector
has curl || missing+=(curl)                   # the command that the server prints
has redis-server || missing+=(redis-server)
has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
has npm || missing+=(npm) # the stand-in for DynamoDB
has chromium || has chromium-browser || has google-chrome || missing+=(chromium) # the dashboard

[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" = 0 ] && has apt-get; then
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi

echo "The tests need packages that are not on this machine: ${missing[*]}" >&2
echo "On Debian or Ubuntu: sudo apt-get install ${missing[*]}" >&2
exit 1
