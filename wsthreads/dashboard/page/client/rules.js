// Paths with parameters, such as /ws/rooms/<name>, as the server's rules write them.

const PARAMETER = /<(?:([a-zA-Z_]\w*)(?:\((.*?)\))?:)?([a-zA-Z_]\w*)>/g;

const EXAMPLES = { int: "1", float: "1.5", uuid: "123e4567-e89b-12d3-a456-426614174000" };

/** The parameters of a path: their names, what they take, and values to begin with. */
export function parametersOf(path) {
  return [...path.matchAll(PARAMETER)].map(([text, converter = "default", options = "", name]) => ({
    name,
    takes: text,
    example: converter === "any" ? options.split(",")[0].trim().replace(/^["']|["']$/g, "") : EXAMPLES[converter] ?? name,
  }));
}

/** The path with the values of its parameters, which are texts by name, percent-encoded. */
export function filledPath(path, values) {
  return path.replace(PARAMETER, (_, converter, options, name) => {
    const value = values[name] ?? "";
    return converter === "path" ? value.split("/").map(encodeURIComponent).join("/") : encodeURIComponent(value);
  });
}
