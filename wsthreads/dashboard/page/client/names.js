// Names for test users.

const NAMES = [
  "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj", "olivia", "peggy",
  "rupert", "sybil", "trent", "victor", "wendy",
];

/** The first name that is not in `taken`: bob, or bob-2 if all are used. */
export function freeName(taken) {
  const used = new Set(taken);
  for (let round = 1; ; round++) {
    for (const name of NAMES) {
      const candidate = round === 1 ? name : `${name}-${round}`;
      if (!used.has(candidate)) return candidate;
    }
  }
}

/** The next free name after `name`: ann, ann-2, ann-3. A name from NAMES is followed by the next one from NAMES. */
export function nextName(name, taken) {
  if (NAMES.includes(name.replace(/-\d+$/, ""))) return freeName(taken);
  const used = new Set(taken);
  const stem = name.replace(/-\d+$/, "");
  for (let number = 2; ; number++) {
    if (!used.has(`${stem}-${number}`)) return `${stem}-${number}`;
  }
}
