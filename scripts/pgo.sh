#!/usr/bin/env bash
# Builds the service as `cargo build --release` does, with its code arranged by what ran while the benchmark's load was on it
# (profile-guided optimisation, https://doc.rust-lang.org/rustc/profile-guided-optimization.html).
#
# Two release builds and two minutes of load. The counts fit this source and this compiler alone, so they are not kept in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# One that is older than the compiler's LLVM cannot read what the compiler's programs write.
profdata=
for candidate in "$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata" "llvm-profdata-$llvm" llvm-profdata; do
    version=$("$candidate" merge --version 2> /dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p' || true)
    if [ "${version:-0}" -ge "$llvm" ]; then
        profdata=$candidate
        break
    fi
done
if [ -z "$profdata" ]; then
    echo "pgo: needs llvm-profdata of LLVM $llvm or later: rustup component add llvm-tools (Debian: apt-get install llvm-$llvm)" >&2
    exit 1
fi
if ! command -v redis-server > /dev/null; then
    echo "pgo: the load wants the program redis-server (Debian: apt-get install redis-server)" >&2
    exit 1
fi

folder=${CARGO_TARGET_DIR:-target}/pgo
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
counts=$folder/counts
# Cargo would take what it built by former counts for up to date.
rm -rf "$counts" "$folder/arranged"

echo "pgo: 1 of 3, a build that counts what runs"
# Named, so that build scripts and macros are built without.
CARGO_ENCODED_RUSTFLAGS="-Cprofile-generate=$counts" cargo build --locked --release --target "$target" --target-dir "$folder/counting" \
    --bin cartwright --bench http
echo "pgo: 2 of 3, the benchmark's load"
CARGO_ENCODED_RUSTFLAGS="-Cprofile-generate=$counts" cargo bench --locked --target "$target" --target-dir "$folder/counting" --bench http \
    -- get post redis --seconds 2 --rounds 1 > "$folder/load.log"
"$profdata" merge -o "$folder/counts.profdata" "$counts"
echo "pgo: 3 of 3, the build"
CARGO_ENCODED_RUSTFLAGS="-Cprofile-use=$folder/counts.profdata" cargo build --locked --release --target "$target" --target-dir "$folder/arranged" \
    --bin cartwright

ln -sf "arranged/$target/release/cartwright" "$folder/cartwright"
echo "pgo: $folder/cartwright"
