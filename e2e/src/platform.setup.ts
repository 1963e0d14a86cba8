import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';

const ROOT = new URL('../..', import.meta.url).pathname;
const CLI = join(ROOT, 'tools/up/cli.ts');

declare module 'vitest' {
  interface ProvidedContext {
    dataRoot: string;
    runDir: string;
    dockerHost: string;
    registry: string;
  }
}

/** What an installation that has been taken down must not leave behind. */
function leftovers(instanceId: string): string[] {
  const controllers = existsSync('/sys/fs/cgroup/cgroup.controllers') ? [''] : readdirSync('/sys/fs/cgroup');
  const cgroups = controllers.flatMap((name) => {
    const path = join('/sys/fs/cgroup', name, 'gantry', instanceId);
    return existsSync(path) ? [`cgroup ${path}`] : [];
  });
  const links = readdirSync('/sys/class/net')
    .filter((name) => name.startsWith(`gv${instanceId}`) || name === `gtry${instanceId}`)
    .map((name) => `link ${name}`);
  const netns = join('/run/gantry', instanceId, 'netns');
  const namespaces = existsSync(netns) ? readdirSync(netns).map((name) => `network namespace ${name}`) : [];
  const tables = execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(`gantry_${instanceId}`));
  return [...cgroups, ...links, ...namespaces, ...tables];
}

export default function setup(project: TestProject): () => void {
  const dataRoot = mkdtempSync(join(tmpdir(), 'gantry-e2e-'));
  const registry = `127.0.0.1:${20_000 + (process.pid % 20_000)}`;
  const up = (...args: string[]) =>
    execFileSync(process.execPath, [CLI, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const screen = up('start', '--data-root', dataRoot, '--registry', registry, '--detach');
  const dockerHost = /export DOCKER_HOST=(\S+)/.exec(screen)?.[1] ?? '';
  const instanceId = /\(instance ([a-f0-9]{6})\)/.exec(screen)?.[1] ?? '';
  project.provide('dataRoot', dataRoot);
  project.provide('runDir', `/run/gantry/${instanceId}`);
  project.provide('dockerHost', dockerHost);
  project.provide('registry', registry);
  return () => {
    up('stop', '--data-root', dataRoot, '--containers');
    // A namespace's links go a moment after it (the kernel does it in the background).
    const until = Date.now() + 5_000;
    while (leftovers(instanceId).length > 0 && Date.now() < until)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    const left = leftovers(instanceId);
    rmSync(dataRoot, { recursive: true, force: true });
    rmSync(`/run/gantry/${instanceId}`, { recursive: true, force: true });
    if (left.length > 0) throw new Error(`left behind:\n${left.join('\n')}`);
  };
}
