// crypto (https://w3c.github.io/webcrypto/): random numbers, digests, and HMAC. Python computes.

const {
  DOMException, bytesOf, kindOf, kindOfView, webClass, randomBytes, randomUUID, digest, hmac, decodeBase64, encodeBase64,
  textOfBytes,
} = tools;

// By name: the size of a block in bits, and the algorithm's name in a JSON Web Key.
const HASHES = {
  __proto__: null, "SHA-1": [512, "HS1"], "SHA-256": [512, "HS256"], "SHA-384": [1024, "HS384"], "SHA-512": [1024, "HS512"],
};
const INTEGERS = [
  "Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint16Array", "Int32Array", "Uint32Array", "BigInt64Array",
  "BigUint64Array",
];
const MAX_RANDOM_BYTES = 65536;
const OFFERED = "crypto.subtle has SHA-1, SHA-256, SHA-384, SHA-512 and HMAC here; a Python file can do more";

function fail(name, message) {
  throw new DOMException(message, name);
}

function nameOf(algorithm) {
  const name = typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm;
  if (name === undefined) {
    throw new TypeError("an algorithm is a text, or an object with a name");
  }
  return `${name}`.toUpperCase();
}

function hashOf(algorithm) {
  const name = nameOf(algorithm);
  return name in HASHES ? name : fail("NotSupportedError", `there is no hash ${name.slice(0, 40)}: ${OFFERED}`);
}

function hmacOf(algorithm) {
  const name = nameOf(algorithm);
  if (name !== "HMAC") {
    fail("NotSupportedError", `there is no algorithm ${name.slice(0, 40)}: ${OFFERED}`);
  }
}

function bytesFor(what, data) {
  const bytes = bytesOf(data);
  if (bytes === null) {
    throw new TypeError(`${what} must be an ArrayBuffer, a typed array or a DataView, not ${kindOf(data)}`);
  }
  return bytes;
}

const PRIVATE = {};
let dataOf, algorithmOf;

class CryptoKey {
  #data;
  #algorithm;
  #isExtractable;
  #usages;

  constructor(key, data, hash, length, isExtractable, usages) {
    if (key !== PRIVATE) {
      throw new TypeError("make a CryptoKey with crypto.subtle.importKey() or crypto.subtle.generateKey()");
    }
    this.#data = data;
    this.#algorithm = { name: "HMAC", hash: { name: hash }, length };
    this.#isExtractable = isExtractable;
    this.#usages = usages;
  }

  get type() {
    return this.#data && "secret";
  }

  get extractable() {
    return this.#isExtractable;
  }

  get algorithm() {
    return { ...this.#algorithm, hash: { ...this.#algorithm.hash } };
  }

  get usages() {
    return [...this.#usages];
  }

  static {
    dataOf = (key) => {
      if (typeof key !== "object" || key === null || !(#data in key)) {
        throw new TypeError(`a key is a CryptoKey, not ${kindOf(key)}`);
      }
      return key.#data;
    };
    // The hash of a key that permits this use.
    algorithmOf = (key, usage) => {
      dataOf(key);
      if (!key.#usages.includes(usage)) {
        fail("InvalidAccessError", `the key cannot be used to ${usage}: its usages are ${key.#usages.join(", ")}`);
      }
      return key.#algorithm.hash.name;
    };
  }
}

function usagesOf(usages) {
  const all = [...usages].map(String);
  const wrong = all.find((usage) => usage !== "sign" && usage !== "verify");
  if (wrong !== undefined || all.length === 0) {
    fail("SyntaxError", `the usages of an HMAC key are "sign" and "verify", not ${wrong === undefined ? "none" : JSON.stringify(wrong)}`);
  }
  return ["sign", "verify"].filter((usage) => all.includes(usage));
}

function fromBase64url(text) {
  const binary = typeof text === "string" ? decodeBase64(text.replace(/-/g, "+").replace(/_/g, "/")) : undefined;
  if (binary === undefined || /[^\w-]/.test(text)) {
    fail("DataError", "the k of a JSON Web Key is base64url");
  }
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function dataOfJwk(jwk, hash, isExtractable, usages) {
  if (typeof jwk !== "object" || jwk === null) {
    throw new TypeError(`a JSON Web Key is an object, not ${kindOf(jwk)}`);
  }
  const { kty, k, alg, use, key_ops: operations, ext } = jwk;
  const wrong = kty !== "oct" ? `kty must be "oct"` : alg !== undefined && alg !== HASHES[hash][1] ? `alg must be ${HASHES[hash][1]}` :
    use !== undefined && use !== "sig" ? `use must be "sig"` : ext === false && isExtractable ? "it is not extractable" :
    operations !== undefined && !usages.every((usage) => [...operations].includes(usage)) ? "key_ops lacks a usage" : "";
  if (wrong !== "") {
    fail("DataError", `the JSON Web Key does not fit: ${wrong}`);
  }
  return fromBase64url(k);
}

class SubtleCrypto {
  async digest(algorithm, data) {
    return digest(bytesFor("the data to hash", data), hashOf(algorithm)).buffer;
  }

  async importKey(format, keyData, algorithm, extractable, keyUsages) {
    hmacOf(algorithm);
    const hash = hashOf(algorithm.hash);
    const usages = usagesOf(keyUsages);
    if (format !== "raw" && format !== "jwk") {
      fail("NotSupportedError", `an HMAC key is imported as "raw" or "jwk", not ${JSON.stringify(`${format}`.slice(0, 40))}`);
    }
    const data = format === "raw" ? bytesFor("a raw key", keyData) : dataOfJwk(keyData, hash, extractable, usages);
    const length = algorithm.length === undefined ? 8 * data.length : Number(algorithm.length);
    if (data.length === 0) {
      fail("DataError", "an HMAC key is at least one byte, and this one is empty: is its name in env?");
    }
    if (length > 8 * data.length || length <= 8 * data.length - 8) {
      fail("DataError", `a key of ${data.length} bytes cannot have a length of ${length} bits`);
    }
    return new CryptoKey(PRIVATE, cutTo(data, length), hash, length, Boolean(extractable), usages);
  }

  async generateKey(algorithm, extractable, keyUsages) {
    hmacOf(algorithm);
    const hash = hashOf(algorithm.hash);
    const usages = usagesOf(keyUsages);
    const length = algorithm.length === undefined ? HASHES[hash][0] : Number(algorithm.length);
    if (!(length > 0 && length <= 8 * MAX_RANDOM_BYTES && Number.isInteger(length))) {
      fail("OperationError", `a key has 1 to ${8 * MAX_RANDOM_BYTES} bits, not ${length}`);
    }
    return new CryptoKey(PRIVATE, cutTo(randomBytes(Math.ceil(length / 8)), length), hash, length, Boolean(extractable), usages);
  }

  async exportKey(format, key) {
    const data = dataOf(key);
    if (!key.extractable) {
      fail("InvalidAccessError", "the key is not extractable");
    }
    if (format === "raw") {
      return data.slice().buffer;
    }
    if (format !== "jwk") {
      fail("NotSupportedError", `an HMAC key is exported as "raw" or "jwk", not ${JSON.stringify(`${format}`.slice(0, 40))}`);
    }
    const k = encodeBase64(textOfBytes(data)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
    return { kty: "oct", k, alg: HASHES[key.algorithm.hash.name][1], key_ops: key.usages, ext: true };
  }

  async sign(algorithm, key, data) {
    hmacOf(algorithm);
    const bytes = bytesFor("the data to sign", data);
    return hmac(bytes, algorithmOf(key, "sign"), dataOf(key)).buffer;
  }

  async verify(algorithm, key, signature, data) {
    hmacOf(algorithm);
    const given = bytesFor("a signature", signature);
    const bytes = bytesFor("the signed data", data);
    return isEqual(hmac(bytes, algorithmOf(key, "verify"), dataOf(key)), given);
  }
}

// Takes the same time for all signatures of the same length.
function isEqual(one, other) {
  if (one.length !== other.length) {
    return false;
  }
  let difference = 0;
  for (let at = 0; at < one.length; at++) {
    difference |= one[at] ^ other[at];
  }
  return difference === 0;
}

// Clears the last bits if the length is not a multiple of 8.
function cutTo(data, length) {
  if (length % 8 !== 0) {
    data[data.length - 1] &= 0xFF00 >> length % 8;
  }
  return data;
}

for (const method of ["encrypt", "decrypt", "deriveBits", "deriveKey", "wrapKey", "unwrapKey"]) {
  SubtleCrypto.prototype[method] = { async [method]() {
    fail("NotSupportedError", `there is no crypto.subtle.${method}: ${OFFERED}`);
  } }[method];
}

class Crypto {
  get subtle() {
    return subtle;
  }

  getRandomValues(array) {
    if (!INTEGERS.includes(kindOfView(array))) {
      fail("TypeMismatchError", `getRandomValues fills typed arrays of whole numbers, not ${kindOf(array)}`);
    }
    if (array.byteLength > MAX_RANDOM_BYTES) {
      fail("QuotaExceededError", `getRandomValues fills at most ${MAX_RANDOM_BYTES} bytes at once, not ${array.byteLength}`);
    }
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(randomBytes(array.byteLength));
    return array;
  }

  randomUUID() {
    return randomUUID();
  }
}

webClass(Crypto, "Crypto");
webClass(SubtleCrypto, "SubtleCrypto");
webClass(CryptoKey, "CryptoKey", ["type", "extractable", "algorithm", "usages"]);
const subtle = new SubtleCrypto();
return { __proto__: null, crypto: new Crypto(), Crypto, CryptoKey, SubtleCrypto };
