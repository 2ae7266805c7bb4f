// Checking proofs here, in the browser, so that the broker's word is not taken for it: RFC 9162 trees with SHA-256, and
// C2SP checkpoints under Ed25519. Web Cryptography exists on https and on localhost only.

export class Broken extends Error {}

const utf8 = new TextEncoder();

export function unbase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

export function hex(bytes) {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function join(...parts) {
  const joined = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) { joined.set(part, at); at += part.length; }
  return joined;
}

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) throw new Broken("this browser offers no cryptography here: use https, or localhost");
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export function leaf(row) { return sha256(join(Uint8Array.of(0), utf8.encode(row))); }
function node(left, right) { return sha256(join(Uint8Array.of(1), left, right)); }
function same(one, other) { return one.length === other.length && one.every((byte, at) => byte === other[at]); }

/** Row `sequence` (from 1) with this text is in the tree of `size` rows with this root. */
export async function verifyInclusion(row, sequence, size, path, root) {
  let number = BigInt(sequence - 1), last = BigInt(size - 1);
  if (number < 0n || number > last) throw new Broken("the row is not within the log");
  let found = await leaf(row);
  for (const beside of path) {
    if (last === 0n) throw new Broken("the path is too long");
    if (number & 1n || number === last) {
      found = await node(beside, found);
      while (!(number & 1n) && number) { number >>= 1n; last >>= 1n; }
    } else found = await node(found, beside);
    number >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Broken("the path is too short");
  if (!same(found, root)) throw new Broken("the row is not in the log that the checkpoint names");
}

/** The log of `newSize` rows begins with that of `oldSize`; RFC 9162 2.1.4.2. */
export async function verifyConsistency(oldSize, oldRoot, newSize, newRoot, path) {
  if (oldSize > newSize) throw new Broken("the log has shrunk");
  if (oldSize === newSize) {
    if (path.length || !same(oldRoot, newRoot)) throw new Broken("the log of the same length is another one");
    return;
  }
  if (oldSize === 0) { if (path.length) throw new Broken("the path is too long"); return; }
  let number = BigInt(oldSize) - 1n, last = BigInt(newSize) - 1n;
  const rest = [...path];
  while (number & 1n) { number >>= 1n; last >>= 1n; }
  if (number && !rest.length) throw new Broken("the path is too short");
  let older = number ? rest.shift() : oldRoot;
  let newer = older;
  for (const beside of rest) {
    if (last === 0n) throw new Broken("the path is too long");
    if (number & 1n || number === last) {
      older = await node(beside, older);
      newer = await node(beside, newer);
      while (!(number & 1n) && number) { number >>= 1n; last >>= 1n; }
    } else newer = await node(newer, beside);
    number >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Broken("the path is too short");
  if (!same(older, oldRoot) || !same(newer, newRoot)) throw new Broken("the log was changed behind the older checkpoint");
}

/** `<name>+<id>+<base64>` as `adyton audit key` prints it. */
async function logKey(text) {
  const at = text.indexOf("+");
  const [id, key] = [text.slice(at + 1, text.indexOf("+", at + 1)), text.slice(text.indexOf("+", at + 1) + 1)];
  const name = text.slice(0, at), raw = unbase64(key);
  if (raw[0] !== 1 || raw.length !== 33) throw new Broken("the log's key is no Ed25519 key");
  const own = (await sha256(join(utf8.encode(`${name}\n`), raw))).slice(0, 4);
  if (hex(own) !== id) throw new Broken("the log's key does not have the id that it claims");
  return { name, id: own, key: raw.slice(1) };
}

/** {origin, size, root} if the key signed the note. */
export async function verifyCheckpoint(note, keyText) {
  const gap = note.lastIndexOf("\n\n");
  if (gap < 0) throw new Broken("this is no checkpoint");
  const body = note.slice(0, gap + 1);
  const [origin, size, root] = body.split("\n");
  const key = await logKey(keyText);
  if (origin !== key.name) throw new Broken("the checkpoint is that of another log");
  const lines = note.slice(gap + 2).split("\n").filter((line) => line.startsWith(`\u2014 ${key.name} `));
  for (const line of lines) {
    const signed = unbase64(line.slice(line.lastIndexOf(" ") + 1));
    if (!same(signed.slice(0, 4), key.id)) continue;
    const imported = await crypto.subtle.importKey("raw", key.key, "Ed25519", false, ["verify"]);
    if (await crypto.subtle.verify("Ed25519", imported, signed.slice(4), utf8.encode(body))) {
      return { origin, size: Number(size), root: unbase64(root) };
    }
    throw new Broken("the signature of the checkpoint does not verify");
  }
  throw new Broken("the log's key did not sign this checkpoint");
}
