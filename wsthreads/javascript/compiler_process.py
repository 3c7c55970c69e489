"""The program that compiles TypeScript in its own process. `typescript.Compiler` starts it; no module imports it.

``python compiler_process.py FOLDER``, where FOLDER contains dukpy. Each line of its input is a file to compile, each
line of its output the result, both in JSON. It imports nothing of wsthreads, so it starts fast.
"""

from __future__ import annotations

import json
import sys
from typing import Any

#: Returns the fields of `Compiled`. Types are dropped. Syntax that QuickJS does not have, such as decorators, is
#: rewritten.
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
