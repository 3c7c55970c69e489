// Stands in for tr46, whose tables are large: Python has them.

export function toASCII(domain) {
  return /^[\0-\x7f]*$/.test(domain) && !/(^|\.)xn--/i.test(domain) ? domain.toLowerCase() : domainToASCII(domain) ?? null;
}
