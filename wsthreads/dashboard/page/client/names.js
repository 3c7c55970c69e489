// Names for users to connect as, one after the other.

const NAMES = [
  "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "mallory", "niaj", "olivia", "peggy",
  "rupert", "sybil", "trent", "victor", "wendy",
];

/** The first name that is none of `taken`: bob, or bob 2 when all have been used. */
export function freeName(taken) {
  const used = new Set(taken);
  for (let round = 1; ; round++) {
    for (const name of NAMES) {
      const candidate = round === 1 ? name : `${name}-${round}`;
      if (!used.has(candidate)) return candidate;
    }
  }
}

/** A name like this one that is not taken: ann, ann-2, ann-3. A name of ours is followed by the next of ours. */
export function nextName(name, taken) {
  if (NAMES.includes(name.replace(/-\d+$/, ""))) return freeName(taken);
  const used = new Set(taken);
  const stem = name.replace(/-\d+$/, "");
  for (let number = 2; ; number++) {
    if (!used.has(`${stem}-${number}`)) return `${stem}-${number}`;
  }
}
