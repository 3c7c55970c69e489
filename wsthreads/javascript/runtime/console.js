// `console`, which writes to Python's logging under the script's name.

const console = {};
for (const [method, level] of Object.entries({ debug: 10, log: 20, info: 20, warn: 30, error: 40 })) {
  console[method] = (...values) => {
    python("console", level, formatted(values), callStack());
  };
}
publish("console", console);

// For the place of the call. The script may have its own idea of what a stack is, or fail at that.
function callStack() {
  const stack = attempt(() => new ERRORS.Error("").stack, "");
  return typeof stack === "string" ? stack : "";
}

// Texts as they are, everything else inspected; %s %d %i %f %j %o %O and %% in a first text are filled in.
function formatted(values) {
  let used = 0;
  let text = "";
  if (typeof values[0] === "string") {
    used = 1;
    text = values.length === 1 ? values[0] : values[0].replace(/%[sdifjoO%]/g, (mark) => {
      if (mark === "%%") {
        return "%";
      }
      return used < values.length ? filledIn(mark, values[used++]) : mark;
    });
  }
  for (; used < values.length; used++) {
    text += (used === 0 ? "" : " ") + shown(values[used]);
  }
  return text;
}

function shown(value) {
  return typeof value === "string" ? value : inspect(value);
}

function filledIn(mark, value) {
  switch (mark) {
    case "%d":
    case "%f": return attempt(() => String(Number(value)), "NaN");
    case "%i": return attempt(() => String(Math.trunc(Number(value))), "NaN");
    case "%s": return shown(value);
    default: return inspect(value);
  }
}
