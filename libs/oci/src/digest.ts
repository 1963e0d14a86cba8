import { createHash, type Hash } from 'node:crypto';
import { InvalidArgument } from '@gantry/errors';

/** `sha256:<64 hex>` or `sha512:<128 hex>` (OCI image-spec, descriptor.md §Digests). */
export type Digest = string & { readonly __brand: 'Digest' };

export type DigestAlgorithm = 'sha256' | 'sha512';

const PATTERNS: Readonly<Record<DigestAlgorithm, RegExp>> = {
  sha256: /^sha256:[a-f0-9]{64}$/,
  sha512: /^sha512:[a-f0-9]{128}$/,
};

/** True for a well-formed digest of a registered algorithm. */
export function isDigest(value: string): value is Digest {
  return PATTERNS.sha256.test(value) || PATTERNS.sha512.test(value);
}

/** The string as a digest. Throws `InvalidArgument` that names it. */
export function parseDigest(value: string): Digest {
  if (!isDigest(value)) throw new InvalidArgument(`invalid digest "${value}"`, { digest: value });
  return value;
}

export function algorithmOf(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(':')) as DigestAlgorithm;
}

/** The hexadecimal part. */
export function encodedOf(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Digest of bytes that are in memory anyway. */
export function digestOf(bytes: Uint8Array | string, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}` as Digest;
}

/** Digest of bytes as they stream past: `update` for each chunk, `digest` once at the end. */
export class Digester {
  readonly #hash: Hash;
  #size = 0;

  constructor(readonly algorithm: DigestAlgorithm = 'sha256') {
    this.#hash = createHash(algorithm);
  }

  /** Bytes seen so far. */
  get size(): number {
    return this.#size;
  }

  update(chunk: Uint8Array): this {
    this.#hash.update(chunk);
    this.#size += chunk.byteLength;
    return this;
  }

  digest(): Digest {
    return `${this.algorithm}:${this.#hash.digest('hex')}` as Digest;
  }
}

/** ChainIDs of a stack of layers, bottom first (OCI image-spec, config.md §Layer ChainID). */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const parent = chain.at(-1);
    chain.push(parent === undefined ? diffId : digestOf(`${parent} ${diffId}`));
  }
  return chain;
}
