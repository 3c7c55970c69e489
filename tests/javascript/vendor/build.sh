#!/usr/bin/env bash
# Make wsthreads/javascript/runtime/lazy/url.js from the versions in package.json. Needs Node and npm.
set -euo pipefail
cd "$(dirname "$0")"
npm install --no-audit --no-fund --no-save --no-package-lock --loglevel=error
node build.mjs
rm -rf node_modules
