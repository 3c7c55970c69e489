// Joins whatwg-url and webidl-conversions into one part of the runtime.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import esbuild from "esbuild";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const require = createRequire(import.meta.url);
const versions = ["whatwg-url", "webidl-conversions"].map((name) => `${name} ${require(`${name}/package.json`).version}`);

const substitutes = {
  name: "substitutes",
  setup(build) {
    build.onResolve({ filter: /^@exodus\/bytes\/|^\.\/encoding$/ }, () => ({ path: here("bytes.mjs") }));
    build.onResolve({ filter: /^tr46$/ }, () => ({ path: here("tr46.mjs") }));
  },
};
const { outputFiles } = await esbuild.build({
  stdin: {
    contents: `import { URL, URLSearchParams } from "whatwg-url/webidl2js-wrapper.js";
      export const made = { Array, Object, Promise, String, TypeError };
      URL.install(made, ["Window"]);
      URLSearchParams.install(made, ["Window"]);`,
    resolveDir: here("."),
  },
  bundle: true, write: false, format: "iife", globalName: "bundle", charset: "utf8", legalComments: "none", target: "es2023",
  plugins: [substitutes],
});
const licenses = [
  readFileSync(here("node_modules/whatwg-url/LICENSE.txt"), "utf8"),
  readFileSync(here("node_modules/webidl-conversions/LICENSE.md"), "utf8"),
].map((text) => text.trim().split("\n").map((line) => `// ${line}`.trimEnd()).join("\n"));
// The iterators of URLSearchParams copy all pairs for each step, and removed pairs move all that follow: quadratic time.
const code = outputFiles[0].text.replace(/^ *\/\/ node_modules\//gm, (found) => found.replace("node_modules/", ""))
  .replace(/Array\.from\(((?:this|target)\[implSymbol\])\)/g, "$1._list")
  .replace(/(?<= delete\(name, value\) \{\n)[^]*?(?= *this\._updateSteps)/, `\
          this._keep((tuple) => tuple[0] !== name || (value !== void 0 && tuple[1] !== value));
`)
  .replace(/(?<= set\(name, value\) \{\n)[^]*?(?= *this\._updateSteps)/, `\
          const first = this._list.find((tuple) => tuple[0] === name) ?? [name, value];
          first[1] = value;
          this._keep((tuple) => tuple[0] !== name || tuple === first);
          if (!this._list.includes(first)) {
            this._list.push(first);
          }
`)
  .replace(/(?= delete\(name, value\) \{\n)/, ` _keep(isKept) {
          let length = 0;
          for (const tuple of this._list) {
            if (isKept(tuple)) {
              this._list[length++] = tuple;
            }
          }
          this._list.length = length;
        }
       `);
writeFileSync(here("../../../wsthreads/javascript/runtime/lazy/url.js"), `\
// URL and URLSearchParams (https://url.spec.whatwg.org). Do not edit: tests/javascript/vendor/build.sh makes this file from
// ${versions.join(" and ")}, with Python's tables for domains.
//
// whatwg-url:
//
${licenses[0]}
//
// webidl-conversions:
//
${licenses[1]}

const { domainToASCII, part, showAs } = tools;

${code}
const { URL, URLSearchParams } = bundle.made;
Object.defineProperty(URL, "name", { value: "URL" });
Object.defineProperty(URLSearchParams, "name", { value: "URLSearchParams" });
showAs(URL.prototype, [
  "href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "searchParams",
  "hash",
]);
showAs(URLSearchParams.prototype, (params, add) => params.forEach((value, name) => add(name, value)));
return { __proto__: null, URL, URLSearchParams };
`);
