#!/usr/bin/env bash
# Finds the servers that the tests start for themselves, or installs Debian's packages of them. Says what to do
# where it can do neither.
set -euo pipefail

if [ -n "${CARTWRIGHT_TEST_DATABASE_URL:-}" ]; then
    exit 0
fi
shopt -s nullglob
binaries=(/usr/lib/postgresql/*/bin/initdb)
if command -v initdb > /dev/null || [ ${#binaries[@]} -gt 0 ]; then
    exit 0
fi
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    echo "services: installing PostgreSQL from Debian's packages"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends postgresql > /dev/null
    exit 0
fi
echo "services: the tests need PostgreSQL's server programs (initdb, postgres)." >&2
echo "  Install them (Debian: sudo apt-get install postgresql), or set CARTWRIGHT_TEST_DATABASE_URL to a" >&2
echo "  server on which databases may be made, such as postgres://postgres@127.0.0.1:5432/postgres." >&2
exit 1
