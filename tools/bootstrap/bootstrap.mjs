#!/usr/bin/env node
/**
 * From a fresh Debian machine with Node and npm to a built workspace, then hands over to the pinned Node. Runs with nothing installed:
 * plain JavaScript, no dependency.
 *
 *   bootstrap.mjs [--test] -- COMMAND…      COMMAND is run with node_modules/.bin first on the path
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync, mkdirSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RUN_PACKAGES, TEST_PACKAGES } from './packages.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const say = (text) => process.stderr.write(`gantry: ${text}\n`);

function die(text) {
  say(text);
  process.exit(1);
}

function isInstalled(name) {
  const result = spawnSync('dpkg-query', ['-W', '-f', '${Status}', name], { encoding: 'utf8' });
  return result.status === 0 && result.stdout.includes('install ok installed');
}

/** Installs what is missing and says why. A service that a package would start is not started: Gantry runs its own. */
function installPackages(wanted) {
  const missing = Object.keys(wanted).filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  for (const name of missing) say(`installing ${name}: ${wanted[name]}`);
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const policy = '/usr/sbin/policy-rc.d';
  const ownPolicy = !existsSync(policy);
  if (ownPolicy) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  try {
    const install = () =>
      spawnSync('apt-get', ['install', '-y', '--no-install-recommends', ...missing], {
        env: environment,
        encoding: 'utf8',
      });
    let result = install();
    if (result.status !== 0) {
      execFileSync('apt-get', ['update'], { env: environment, stdio: 'ignore' });
      result = install();
    }
    if (result.status !== 0) die(`apt-get could not install ${missing.join(' ')}:\n${result.stderr}`);
  } finally {
    if (ownPolicy) execFileSync('rm', ['-f', policy]);
  }
}

/** npm ci, where node_modules is missing or of another lock file. */
function installModules() {
  const stamp = join(root, 'node_modules/.gantry-lock');
  const lock = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return;
  say('installing npm packages');
  const result = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (result.status !== 0) die('npm ci failed');
  writeFileSync(stamp, lock);
}

function build(environment) {
  const result = spawnSync('nx', ['run-many', '-t', 'build', '--output-style=static', '--parallel=2'], {
    cwd: root,
    env: environment,
    encoding: 'utf8',
  });
  if (result.status !== 0) die(`the build failed:\n${result.stdout}\n${result.stderr}`);
}

const separator = process.argv.indexOf('--');
const options = process.argv.slice(2, separator);
const command = process.argv.slice(separator + 1);
const isHelp = command.includes('--help');

if (process.platform !== 'linux') die('Gantry runs on Linux');
if (Number(process.versions.node.split('.')[0]) < 20) die(`Node 20 or later is needed, this is ${process.version}`);
if (process.getuid() !== 0 && !isHelp) die('Gantry makes namespaces, cgroups and mounts: run it as root');

if (!isHelp) installPackages(options.includes('--test') ? { ...RUN_PACKAGES, ...TEST_PACKAGES } : RUN_PACKAGES);
installModules();
const environment = {
  ...process.env,
  PATH: `${join(root, 'node_modules/.bin')}:${process.env.PATH}`,
  NX_DAEMON: 'false',
};
mkdirSync(join(root, '.nx'), { recursive: true });
if (!isHelp && !options.includes('--no-build')) build(environment);

const child = spawn(command[0], command.slice(1), { cwd: root, env: environment, stdio: 'inherit' });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('error', (error) => die(error.message));
child.on('exit', (code, signal) => process.exit(signal ? 1 : code));
