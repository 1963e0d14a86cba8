import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Readable } from 'node:stream';
import { InvalidArgument } from '@gantry/errors';

const run = promisify(execFile);
const TIMEOUT_MS = 5 * 60_000;
/** Neither the machine's nor a user's configuration, no prompts, no helpers, no file paths as remotes. */
const ENVIRONMENT = {
  PATH: process.env.PATH,
  HOME: '/nonexistent',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_TERMINAL_PROMPT: '0',
  GIT_ALLOW_PROTOCOL: 'https:http:git:ssh',
};

/** A repository at a ref as a tar. `close` removes what was cloned. Throws `InvalidArgument` with git's own words. */
export async function cloneContext(
  url: string,
  ref: string,
  subdirectory: string,
  signal: AbortSignal,
): Promise<{ tar: Readable; close: () => Promise<void> }> {
  if (!/^(https?|git|ssh):\/\//.test(url)) throw new InvalidArgument(`"${url}" is no Git URL that builds may use`);
  if (ref.startsWith('-') || subdirectory.split('/').includes('..'))
    throw new InvalidArgument(`invalid Git reference or folder: ${ref}:${subdirectory}`);
  const directory = await mkdtemp(join(tmpdir(), 'gantry-git-'));
  const git = (...args: string[]) =>
    run('git', ['-C', directory, ...args], { env: ENVIRONMENT, timeout: TIMEOUT_MS, signal });
  try {
    await git('init', '--quiet');
    await git('-c', 'core.hooksPath=/dev/null', 'fetch', '--quiet', '--depth', '1', '--', url, ref || 'HEAD');
    const child = spawn(
      'git',
      ['-C', directory, 'archive', '--format=tar', `FETCH_HEAD${subdirectory ? `:${subdirectory}` : ''}`],
      { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'ignore'] },
    );
    return { tar: child.stdout, close: () => rm(directory, { recursive: true, force: true }) };
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw new InvalidArgument(
      `cannot fetch ${url}${ref ? `#${ref}` : ''}: ${(error as { stderr?: string }).stderr?.trim() || (error as Error).message}`,
      {},
      { cause: error },
    );
  }
}
