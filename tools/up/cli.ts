import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { fileURLToPath } from 'node:url';
import { DEFAULT_DATA_ROOT, instanceOf, type Instance } from './instance.ts';
import { ask, Supervisor, type Status } from './supervisor.ts';

const HELP = `Usage:
  npm start  -- [--data-root DIR] [--host unix:///PATH|tcp://ADDRESS:PORT]… [--registry ADDRESS:PORT] [--workers N] [--detach]
  npm stop   -- [--data-root DIR] [--containers]
  npm run status -- [--data-root DIR]

  --data-root DIR      where everything is kept (default ${DEFAULT_DATA_ROOT}); installations with different roots live side by side
  --host ADDRESS       where the Docker API is served; may be given several times (default unix://RUNDIR/docker.sock)
  --registry ADDRESS   where the registry is served, plain HTTP (default 127.0.0.1:5000)
  --workers N          build workers (default 2)
  --detach             return when everything is ready; non-zero, with the reason, if not
  --containers         stop the containers too
`;

interface Arguments {
  readonly instance: Instance;
  readonly hosts: string[];
  readonly registry: string;
  readonly workers: number;
  readonly detach: boolean;
  readonly containers: boolean;
}

function parse(args: string[]): Arguments {
  const { values } = parseArgs({
    args,
    options: {
      'data-root': { type: 'string', default: DEFAULT_DATA_ROOT },
      host: { type: 'string', multiple: true },
      registry: { type: 'string', default: '127.0.0.1:5000' },
      workers: { type: 'string', default: '2' },
      detach: { type: 'boolean', default: false },
      containers: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  const instance = instanceOf(values['data-root']);
  return {
    instance,
    hosts: values.host ?? [`unix://${instance.runDir}/docker.sock`],
    registry: values.registry,
    workers: Number(values.workers),
    detach: values.detach,
    containers: values.containers,
  };
}

function screen(status: Status): string {
  const services = status.services.map(
    ({ name, pid, restarts }) =>
      `  ${name.padEnd(12)} ${pid ? `pid ${pid}` : 'down'}${restarts > 0 ? `, restarted ${restarts}×` : ''}`,
  );
  return [
    `Gantry ${status.version} on ${status.dataRoot} (instance ${status.instanceId})`,
    ...services,
    `  registry     http://${status.registry}`,
    '',
    `  export DOCKER_HOST=${status.hosts[0]}`,
    '',
  ].join('\n');
}

async function start(options: Arguments, args: string[]): Promise<void> {
  if (options.detach) return startDetached(options, args);
  const supervisor = new Supervisor(options);
  const close = () => void supervisor.stop().then(() => process.exit(0));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, close);
  await supervisor.start((text) => process.stdout.write(`${text}\n`));
  process.stdout.write(`\n${screen(supervisor.status())}\nCtrl-C stops the services; containers run on.\n`);
}

/** Starts the supervisor in a session of its own and waits for its word. */
async function startDetached(options: Arguments, args: string[]): Promise<void> {
  const logPath = join(options.instance.dataRoot, 'logs/up.log');
  mkdirSync(join(options.instance.dataRoot, 'logs'), { recursive: true });
  const log = openSync(logPath, 'w', 0o640);
  const child = spawn(
    process.execPath,
    [fileURLToPath(import.meta.url), 'start', ...args.filter((arg) => arg !== '--detach')],
    { detached: true, stdio: ['ignore', log, log] },
  );
  closeSync(log);
  const failed = new Promise<never>((_, reject) =>
    child.once('exit', () => reject(new Error(readFileSync(logPath, 'utf8').trim()))),
  );
  const ready = (async () => {
    while (!readFileSync(logPath, 'utf8').includes('export DOCKER_HOST='))
      await new Promise((resolve) => setTimeout(resolve, 50));
  })();
  await Promise.race([ready, failed]);
  child.unref();
  const status = await ask(join(options.instance.runDir, 'up.sock'), 'status');
  process.stdout.write(screen(JSON.parse(status ?? '{}') as Status));
  process.exit(0);
}

/** Kills and removes through the API, while it is still there. */
function stopContainers(socketPath: string): Promise<void> {
  const call = (method: string, path: string) =>
    new Promise<string>((resolve, reject) => {
      request({ socketPath, method, path }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('end', () => resolve(text));
      })
        .once('error', reject)
        .end();
    });
  return call('GET', '/containers/json').then(async (text) => {
    await Promise.all(
      (JSON.parse(text) as { Id: string }[]).map(({ Id }) => call('POST', `/containers/${Id}/stop?t=5`)),
    );
  });
}

async function stop(options: Arguments): Promise<void> {
  const control = join(options.instance.runDir, 'up.sock');
  if (!(await ask(control, 'status'))) {
    process.stdout.write(`nothing runs on ${options.instance.dataRoot}\n`);
    return;
  }
  if (options.containers) await stopContainers(join(options.instance.runDir, 'gateway.http.sock'));
  await ask(control, 'stop');
  process.stdout.write(`stopped${options.containers ? ', containers too' : '; containers run on'}\n`);
}

async function status(options: Arguments, isGiven: boolean): Promise<void> {
  const ids = isGiven || !existsSync('/run/gantry') ? [options.instance.id] : readdirSync('/run/gantry');
  const answers = await Promise.all(ids.map((id) => ask(join('/run/gantry', id, 'up.sock'), 'status')));
  const running = answers.flatMap((answer) => (answer ? [JSON.parse(answer) as Status] : []));
  process.stdout.write(running.length > 0 ? running.map(screen).join('\n') : 'no installation runs\n');
  process.exitCode = running.length > 0 ? 0 : 3;
}

const [command = 'start', ...args] = process.argv.slice(2);
const options = parse(args);
try {
  if (command === 'start') await start(options, args);
  else if (command === 'stop') await stop(options);
  else if (command === 'status') await status(options, args.includes('--data-root'));
  else process.stdout.write(HELP);
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exit(1);
}
