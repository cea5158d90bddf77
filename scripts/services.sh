#!/usr/bin/env bash
# Finds the programs that the tests start for themselves, or installs Debian's packages of them. Says what to do
# where it can do neither.
set -euo pipefail

has_postgres() {
    shopt -s nullglob
    local binaries=(/usr/lib/postgresql/*/bin/initdb)
    [ -n "${CARTWRIGHT_TEST_DATABASE_URL:-}" ] || command -v initdb > /dev/null || [ ${#binaries[@]} -gt 0 ]
}

has_redis() {
    command -v redis-server > /dev/null || [ -x /usr/bin/redis-server ]
}

has_node() {
    command -v node > /dev/null && command -v npm > /dev/null
}

missing=()
has_postgres || missing+=(postgresql)
has_redis || missing+=(redis-server)
has_node || missing+=(nodejs npm)
if [ ${#missing[@]} = 0 ]; then
    exit 0
fi

if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    echo "services: installing Debian's packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
    exit 0
fi

for package in "${missing[@]}"; do
    case $package in
        postgresql)
            echo "services: the tests need PostgreSQL's server programs (initdb, postgres)." >&2
            echo "  Install them (Debian: sudo apt-get install postgresql), or set CARTWRIGHT_TEST_DATABASE_URL to a" >&2
            echo "  server on which databases may be made, such as postgres://postgres@127.0.0.1:5432/postgres." >&2
            ;;
        redis-server)
            echo "services: the tests start servers of their own from the program redis-server, 6.2 or later." >&2
            echo "  Install it (Debian: sudo apt-get install redis-server)." >&2
            ;;
        nodejs)
            echo "services: a test runs OpenFeature's own SDKs under Node.js, 18 or later, and installs them with npm." >&2
            echo "  Install them (Debian: sudo apt-get install nodejs npm, or https://nodejs.org)." >&2
            ;;
    esac
done
exit 1
