"""`crypto` in scripts: random numbers, digests and HMAC, as https://w3c.github.io/webcrypto/ has them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.javascript.test_engine import remove_engine
from tests.javascript_fakes import running

#: Runs each message as the body of an async function, and answers with the result or the error.
EVALUATE = """
const AsyncFunction = (async () => {}).constructor;
const bytes = (...numbers) => new Uint8Array(numbers);
const text = (value) => new TextEncoder().encode(value);
const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const HMAC = { name: "HMAC", hash: "SHA-256" };
export async function onMessage(session, code) {
  try {
    const run = new AsyncFunction("bytes", "text", "hex", "HMAC", code);
    session.send(JSON.stringify({ value: await run(bytes, text, hex, HMAC) }));
  } catch (error) {
    session.send(JSON.stringify({ value: error.name, message: error.message }));
  }
}
"""


class Evaluator:
    def __init__(self, script: Any) -> None:
        self._script, self._session = script, script.open()

    def __call__(self, code: str) -> Any:
        return json.loads(self._script.answer(self._session, code)).get("value")


@pytest.fixture(scope="module", params=["engine", "no engine"])
def js(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluator]:
    has_no_engine = request.param == "no engine"
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            if has_no_engine:
                remove_engine(patch)
            folder = tmp_path_factory.mktemp("crypto")
            script = stack.enter_context(running(folder, EVALUATE, scripts_without_deadline=has_no_engine))
        yield Evaluator(script)


HASHES = {"SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


@pytest.mark.parametrize(("name", "python"), HASHES.items())
@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 300], ids=len)
def test_digests_are_those_of_hashlib(js: Evaluator, name: str, python: str, data: bytes) -> None:
    made = f"Uint8Array.from({{ length: {len(data)} }}, (_, i) => {'i' if len(data) > 3 else '97 + i'})"
    for algorithm in (f"'{name}'", f"{{ name: '{name.lower()}' }}"):
        assert (
            js(f"return hex(await crypto.subtle.digest({algorithm}, {made}))") == hashlib.new(python, data).hexdigest()
        )


@pytest.mark.parametrize(("name", "python"), HASHES.items())
@pytest.mark.parametrize("key", [b"k", b"Jefe", bytes(range(256))], ids=len)
def test_signatures_are_those_of_hmac(js: Evaluator, name: str, python: str, key: bytes) -> None:
    code = f"""const usages = ["sign", "verify"], algorithm = {{ name: "hmac", hash: {{ name: "{name}" }} }};
      const key = await crypto.subtle.importKey("raw", bytes({", ".join(map(str, key))}), algorithm, false, usages);
      const data = text("what do ya want for nothing?");
      const signature = await crypto.subtle.sign("HMAC", key, data);
      const forged = new Uint8Array(signature.slice());
      forged[3] ^= 1;
      const verify = (signature, data) => crypto.subtle.verify({{ name: "HMAC" }}, key, signature, data);
      return [hex(signature), await verify(signature, data), await verify(forged, data),
        await verify(signature.slice(1), data), await verify(bytes(), data), await verify(signature, text("what")),
        key.type, key.extractable, key.algorithm, key.usages, String(key)];"""
    expected = hmac.new(key, b"what do ya want for nothing?", python).hexdigest()
    assert js(code) == [
        expected, True, False, False, False, False, "secret", False,
        {"name": "HMAC", "hash": {"name": name}, "length": 8 * len(key)}, ["sign", "verify"], "[object CryptoKey]",
    ]  # fmt: skip


def test_keys_come_and_go_as_json_web_keys(js: Evaluator) -> None:
    secret = bytes(range(200, 250))
    k = base64.urlsafe_b64encode(secret).decode().rstrip("=")
    code = f"""const usages = ["verify", "sign"];
      const jwk = {{ kty: "oct", k: "{k}", alg: "HS256", use: "sig", key_ops: usages, ext: true }};
      const key = await crypto.subtle.importKey("jwk", jwk, HMAC, true, usages);
      return [[...new Uint8Array(await crypto.subtle.exportKey("raw", key))],
        await crypto.subtle.exportKey("jwk", key)];"""
    jwk = {"kty": "oct", "k": k, "alg": "HS256", "key_ops": ["sign", "verify"], "ext": True}
    assert js(code) == [list(secret), jwk]


@pytest.mark.parametrize(("name", "bits"), [("SHA-1", 512), ("SHA-256", 512), ("SHA-384", 1024), ("SHA-512", 1024)])
def test_keys_are_made_with_the_size_of_a_block(js: Evaluator, name: str, bits: int) -> None:
    code = f"""const make = async () => {{
        const key = await crypto.subtle.generateKey({{ name: "HMAC", hash: "{name}" }}, true, ["sign"]);
        return [key.algorithm.length, hex(await crypto.subtle.exportKey("raw", key))];
      }};
      return [await make(), await make()];"""
    (first_bits, first), (second_bits, second) = js(code)
    assert first_bits == second_bits == bits
    assert len(first) == len(second) == bits // 4
    assert first != second


IMPORT = "return (await crypto.subtle.importKey"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return crypto.subtle.digest('MD5', bytes())", "NotSupportedError"),
        ("return crypto.subtle.digest('SHA-256', 'text')", "TypeError"),
        ("return crypto.subtle.digest(undefined, bytes())", "TypeError"),
        (IMPORT + "('raw', bytes(1), { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }, false, ['verify'])).type",
         "NotSupportedError"),
        (IMPORT + "('raw', bytes(1), { name: 'HMAC' }, false, ['sign'])).type", "TypeError"),
        (IMPORT + "('raw', bytes(1), { name: 'HMAC', hash: 'MD5' }, false, ['sign'])).type", "NotSupportedError"),
        (IMPORT + "('raw', bytes(1), HMAC, false, [])).type", "SyntaxError"),
        (IMPORT + "('raw', bytes(1), HMAC, false, ['encrypt'])).type", "SyntaxError"),
        (IMPORT + "('raw', bytes(), HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('spki', bytes(1), HMAC, false, ['sign'])).type", "NotSupportedError"),
        (IMPORT + "('raw', 'text', HMAC, false, ['sign'])).type", "TypeError"),
        (IMPORT + "('raw', bytes(255, 255), { ...HMAC, length: 17 }, false, ['sign'])).type", "DataError"),
        (IMPORT + "('raw', bytes(255, 255), { ...HMAC, length: 12 }, false, ['sign'])).algorithm.length", 12),
        (IMPORT + "('jwk', { kty: 'RSA', k: 'AA' }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct', k: 'A+A' }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct' }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct', k: 'AAAA', alg: 'HS512' }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct', k: 'AAAA', use: 'enc' }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct', k: 'AAAA', key_ops: ['verify'] }, HMAC, false, ['sign'])).type", "DataError"),
        (IMPORT + "('jwk', { kty: 'oct', k: 'AAAA', ext: false }, HMAC, true, ['sign'])).type", "DataError"),
        ("const key = await crypto.subtle.generateKey(HMAC, false, ['verify']);"
         "return crypto.subtle.sign('HMAC', key, bytes())", "InvalidAccessError"),
        ("const key = await crypto.subtle.generateKey(HMAC, false, ['sign']);"
         "return crypto.subtle.verify('HMAC', key, bytes(), bytes())", "InvalidAccessError"),
        ("const key = await crypto.subtle.generateKey(HMAC, false, ['sign']);"
         "return crypto.subtle.exportKey('raw', key)", "InvalidAccessError"),
        ("return crypto.subtle.sign('HMAC', {}, bytes())", "TypeError"),
        ("return crypto.subtle.sign('HMAC', Object.create(CryptoKey.prototype), bytes())", "TypeError"),
        ("return new CryptoKey()", "TypeError"),
        ("return crypto.subtle.generateKey({ ...HMAC, length: 0 }, false, ['sign'])", "OperationError"),
        ("return crypto.subtle.encrypt({ name: 'AES-GCM' }, null, bytes())", "NotSupportedError"),
        ("return crypto.getRandomValues(new Float32Array(1))", "TypeMismatchError"),
        ("return crypto.getRandomValues(new DataView(new ArrayBuffer(1)))", "TypeMismatchError"),
        ("return crypto.getRandomValues([1])", "TypeMismatchError"),
        ("return crypto.getRandomValues(new Uint8Array(65537))", "QuotaExceededError"),
        ("return crypto.getRandomValues(new Uint8Array(65536)).length", 65536),
        ("return crypto.getRandomValues(bytes()).length", 0),
        ("return [crypto.subtle.digest.name, crypto.subtle.encrypt.name, String(crypto)]",
         ["digest", "encrypt", "[object Crypto]"]),
    ],
)  # fmt: skip
def test_what_is_not_possible_is_an_error_of_the_standard(js: Evaluator, code: str, expected: Any) -> None:
    assert js(code) == expected


def test_an_error_says_what_there_is(js: Evaluator) -> None:
    code = "try { await crypto.subtle.digest('MD5', bytes()); } catch (error) { return error.message; }"
    assert js(code).startswith("there is no hash MD5: crypto.subtle has SHA-1, SHA-256")
    empty = f"{IMPORT}('raw', text(undefined), HMAC, false, ['sign']))"
    code = f"try {{ {empty} }} catch (error) {{ return error.message; }}"
    assert js(code) == "an HMAC key is at least one byte, and this one is empty: is its name in env?"


def test_random_values_fill_the_array_and_nothing_else(js: Evaluator) -> None:
    code = """const all = [];
      for (const Kind of [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array,
          BigInt64Array, BigUint64Array]) {
        const buffer = new ArrayBuffer(800);
        const view = new Kind(buffer, 400, 200 / Kind.BYTES_PER_ELEMENT);
        const same = crypto.getRandomValues(view) === view;
        const around = [...new Uint8Array(buffer, 0, 400), ...new Uint8Array(buffer, 600)].every((byte) => byte === 0);
        all.push([same, around, new Set(new Uint8Array(buffer, 400, 200)).size > 50]);
      }
      return all;"""
    assert js(code) == [[True, True, True]] * 9


def test_uuids_are_random_and_of_version_4(js: Evaluator) -> None:
    found = js("return Array.from({ length: 100 }, () => crypto.randomUUID())")
    assert len(set(found)) == 100
    for uuid in found:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)


def test_a_keys_bytes_cannot_be_changed_from_outside(js: Evaluator) -> None:
    code = """const raw = text("secret");
      const key = await crypto.subtle.importKey("raw", raw, HMAC, true, ["sign"]);
      raw.fill(0);
      new Uint8Array(await crypto.subtle.exportKey("raw", key)).fill(0);
      key.usages.push("verify");
      key.algorithm.hash.name = "SHA-1";
      return [hex(await crypto.subtle.sign("HMAC", key, bytes())), key.usages];"""
    assert js(code) == [hmac.new(b"secret", b"", "sha256").hexdigest(), ["sign"]]
