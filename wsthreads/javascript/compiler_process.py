"""The program that compiles TypeScript, in a process of its own. `typescript.Compiler` starts it. No module imports it.

The program runs as ``python compiler_process.py FOLDER``. FOLDER contains dukpy. Each line of the input has a file to
compile, and each line of the output has the result. Both are JSON. The program imports nothing of wsthreads, so that it
starts fast.
"""

from __future__ import annotations

import json
import sys
from typing import Any

#: Returns an object with the fields of `Compiled`. Drops types, and rewrites syntax that QuickJS does not have, such as
#: decorators.
COMPILE = """
(function (name, source) {
  var result = ts.transpileModule(source, {
    fileName: name,
    reportDiagnostics: true,
    compilerOptions: {
      module: ts.ModuleKind.ESNext,
      target: ts.ScriptTarget.ES2022,
      newLine: ts.NewLineKind.LineFeed,
      isolatedModules: true,
      sourceMap: true
    }
  });
  var first = result.diagnostics[0];
  var place = first && ts.getLineAndCharacterOfPosition(first.file, first.start);
  return {
    code: result.outputText.replace(/\\n?\\/\\/# sourceMappingURL=.*\\n?$/, ""),
    mappings: JSON.parse(result.sourceMapText).mappings,
    imports: ts.preProcessFile(source, true, true).importedFiles.map(function (file) { return file.fileName; }),
    error: first
      ? [place.line + 1, place.character + 1, ts.flattenDiagnosticMessageText(first.messageText, " ")]
      : null
  };
})(dukpy.name, dukpy.source)
"""


def main(folder: str) -> None:
    sys.path.append(folder)
    compiler: Any = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if compiler is None:
                compiler = _load()
            answer = compiler.evaljs(COMPILE, name=question["name"], source=question["source"])
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def _load() -> Any:
    import dukpy
    from dukpy import tsc

    interpreter = dukpy.JSInterpreter()
    with open(tsc.TS_COMPILER, encoding="utf-8") as file:
        interpreter.evaljs(file.read() + "\n;0")
    return interpreter


if __name__ == "__main__":
    main(sys.argv[1])
