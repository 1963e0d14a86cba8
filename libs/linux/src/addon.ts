import { createRequire } from 'node:module';
import { DomainError, Internal, NotFound } from '@gantry/errors';
import { NATIVE_DIRECTORY } from './zygote.js';

/** What must happen inside Node's process; each call runs in libuv's pool. Errors carry `code` (an errno name). */
interface Addon {
  netlinkTransact(namespacePath: string, requests: Buffer): Promise<Buffer>;
  netnsCreate(path: string): Promise<Buffer>;
  netnsDelete(path: string): Promise<Buffer>;
  nftablesRun(commands: string, asJson: number): Promise<Buffer>;
  seccompCompile(architectures: string, rules: string, defaultAction: number): Promise<Buffer>;
}

let loaded: Addon | undefined;

function addon(): Addon {
  loaded ??= createRequire(import.meta.url)(`${NATIVE_DIRECTORY}gantry_linux.node`) as Addon;
  return loaded;
}

/** The errno name of a failed native call, or undefined. */
export function errnoOf(error: unknown): string | undefined {
  const cause = error instanceof DomainError ? error.cause : error;
  return cause instanceof Error && 'code' in cause ? String(cause.code) : undefined;
}

async function native<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    const message = (error as Error).message;
    if (errnoOf(error) === 'ENOENT') throw new NotFound('kernel object', '', message, { cause: error });
    throw new Internal(message, { errno: errnoOf(error) ?? '' }, { cause: error });
  }
}

/** Sends rtnetlink requests in order within a namespace (`""`: the host's) and gives back what the kernel answered. */
export function netlinkTransact(namespacePath: string, requests: Buffer): Promise<Buffer> {
  return native(addon().netlinkTransact(namespacePath, requests));
}

/** A new network namespace pinned on `path`, its loopback up. */
export async function createNetworkNamespace(path: string): Promise<void> {
  await native(addon().netnsCreate(path));
}

/** Gives a pinned namespace up. Idempotent. */
export async function deleteNetworkNamespace(path: string): Promise<void> {
  await native(addon().netnsDelete(path));
}

/** Runs nft(8) commands as one transaction. `NotFound` where they name something that is not there. */
export async function runNftables(commands: string): Promise<string> {
  return (await native(addon().nftablesRun(commands, 0))).toString();
}

export function compileFilter(architectures: string, rules: string, defaultAction: number): Promise<Buffer> {
  return native(addon().seccompCompile(architectures, rules, defaultAction));
}
