#!/bin/sh
# Checks the dependency tree against deny.toml without cargo-deny: bans, duplicate versions, licences, sources.
# Reads one entry per line of the lists in deny.toml, and looks at Linux on x86-64 only; cargo-deny, where it is
# installed, looks at every target and reads licence texts too.
set -eu
cd "$(dirname "$0")/.."

tree=$(mktemp)
trap 'rm -f "$tree"' EXIT
cargo tree --locked --all-features -e normal,build --target x86_64-unknown-linux-gnu \
    --prefix none --format '{p}|{l}' > "$tree"

# The names in a list of deny.toml: every `name = "…"` between `LIST = [` and the closing bracket.
names() {
    awk -v list="$1" '
        index($0, list " = [") == 1 { inside = 1; next }
        inside && /^\]/ { inside = 0 }
        inside && match($0, /name = "[^"]*"/) { print substr($0, RSTART + 8, RLENGTH - 9) }
    ' deny.toml
}

{
    names deny | sed 's/^/deny /'
    names skip | sed 's/^/skip /'
    sed -n 's/^allow = \[\(.*\)\]$/\1/p' deny.toml | tr ',' '\n' | sed 's/[" ]*$//; s/^[" ]*/allow /'
    sed 's/ (\*)$//; s/ ([^|]*|/|/; s/^/crate /' "$tree" | sort -u
} | awk '
    function trim(text) { gsub(/^[ ()]+|[ ()]+$/, "", text); return text }
    # One alternative of an expression: every part of it must be allowed.
    function allowed(alternative,    parts, count, i) {
        count = split(alternative, parts, " AND ")
        for (i = 1; i <= count; i++) if (!(trim(parts[i]) in allow)) return 0
        return count > 0
    }
    # Brackets are only met around alternatives beside AND: "(A OR B) AND C" is taken apart by hand.
    function acceptable(expression,    alternatives, count, i, sides) {
        gsub(/\//, " OR ", expression); gsub(/  +/, " ", expression)
        if (match(expression, /^\([^)]*\) AND /)) {
            sides = substr(expression, RLENGTH + 1)
            return acceptable(trim(substr(expression, 1, RLENGTH - 5))) && acceptable(sides)
        }
        count = split(expression, alternatives, " OR ")
        for (i = 1; i <= count; i++) if (allowed(alternatives[i])) return 1
        return 0
    }
    function complain(text) { print "deps: " text; failed = 1 }
    $1 == "deny" { deny[$2] = 1 }
    $1 == "skip" { skip[$2] = 1; unused[$2] = 1 }
    $1 == "allow" { sub(/^allow /, ""); allow[$0] = 1 }
    $1 == "crate" {
        total++
        if ($2 in deny) complain($2 " is banned by deny.toml")
        split($0, halves, "|"); version = $3; sub(/\|.*/, "", version)
        if (($2 in seen) && seen[$2] != version) {
            delete unused[$2]
            if (!($2 in skip)) complain($2 " is in the tree as " seen[$2] " and " version)
        }
        seen[$2] = version
        if (!acceptable(halves[2])) complain($2 " is licensed under " halves[2])
    }
    END {
        for (name in unused) complain(name " is skipped in deny.toml and no duplicate any more")
        if (total < 10) complain("cargo tree listed only " total " crates")
        if (!failed) print "deps: " total " crates, as deny.toml wants them"
        exit failed
    }
'

# Everything comes from crates.io and carries a checksum.
if grep '^source = ' Cargo.lock | grep -v '"registry+https://github.com/rust-lang/crates.io-index"'; then
    echo "deps: Cargo.lock names another source than crates.io"
    exit 1
fi
