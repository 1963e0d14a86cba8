import { spawn } from 'node:child_process';
import { existsSync, globSync, readFileSync, rmSync } from 'node:fs';

/** Everything that has to hold before a change lands; prints one closing line that counts all tests. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly success: boolean;
}

function step(name: string, command: string, args: readonly string[]): Promise<boolean> {
  const began = Date.now();
  process.stdout.write(`\n▶ ${name}\n`);
  return new Promise((resolve) => {
    const child = spawn(command, [...args], { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', () => resolve(false));
    child.on('exit', (code) => {
      process.stdout.write(`${code === 0 ? '✔' : '✖'} ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)\n`);
      resolve(code === 0);
    });
  });
}

const reportPaths = () => globSync(['{apps,libs}/*/test-report.json', 'e2e/test-report.json']);
for (const path of reportPaths()) rmSync(path);

const nx = (...args: string[]) => ['run-many', '--output-style=static', '--parallel=2', '--nx-bail=false', ...args];
const results = [
  await step('format', 'prettier', ['--check', '.', '--log-level', 'warn']),
  await step('types, lint and native checks', 'nx', nx('-t', 'typecheck', 'lint', 'native')),
  await step('unit and contract tests', 'nx', nx('-t', 'unit')),
  await step('end to end', 'nx', ['run', 'e2e:e2e', '--output-style=static']),
];

const reports = reportPaths()
  .filter(existsSync)
  .map((path) => JSON.parse(readFileSync(path, 'utf8')) as Report);
const sum = (of: (report: Report) => number) => reports.reduce((total, report) => total + of(report), 0);
const isGreen = results.every(Boolean) && reports.every(({ success }) => success);
process.stdout.write(
  `\n${sum((r) => r.numPassedTests)} passed, ${sum((r) => r.numFailedTests)} failed, ${sum((r) => r.numPendingTests)} skipped\n`,
);
process.exit(isGreen ? 0 : 1);
