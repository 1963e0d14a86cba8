import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { agent } from '@gantry/contracts';
import type { Sandbox } from '../networks/networks.service.js';

const FALLBACK_NAMESERVERS = ['8.8.8.8', '8.8.4.4'];

export interface ContainerFiles {
  readonly hostname: string;
  readonly hosts: string;
  readonly resolvConf: string;
}

/** The host's resolver as a container can use it: an address of the host's own loopback leads nowhere from inside. */
function resolvConf(host: agent.HostConfig, isHostNetwork: boolean): string {
  let inherited: string[] = [];
  try {
    inherited = readFileSync('/etc/resolv.conf', 'utf8').split('\n');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  if (isHostNetwork && host.dns.length === 0) return inherited.join('\n');
  const servers =
    host.dns.length > 0
      ? host.dns
      : inherited
          .filter((line) => /^nameserver\s/.test(line) && !/\s(127\.|::1)/.test(line))
          .map((line) => line.split(/\s+/)[1] ?? '');
  const search =
    host.dnsSearch.length > 0
      ? [`search ${host.dnsSearch.join(' ')}`]
      : inherited.filter((line) => /^search\s/.test(line));
  const options =
    host.dnsOptions.length > 0
      ? [`options ${host.dnsOptions.join(' ')}`]
      : inherited.filter((line) => /^options\s/.test(line));
  return [
    ...(servers.length > 0 ? servers : FALLBACK_NAMESERVERS).map((server) => `nameserver ${server}`),
    ...search,
    ...options,
    '',
  ].join('\n');
}

/** Writes the files that are bound into the container; in place, as a running one holds their inodes. */
export function writeContainerFiles(
  directory: string,
  hostname: string,
  host: agent.HostConfig,
  sandbox: Sandbox | undefined,
): ContainerFiles {
  mkdirSync(directory, { recursive: true });
  const files = {
    hostname: join(directory, 'hostname'),
    hosts: join(directory, 'hosts'),
    resolvConf: join(directory, 'resolv.conf'),
  };
  const extra = host.extraHosts.map((entry) => {
    const at = entry.indexOf(':');
    const address = entry.slice(at + 1);
    return `${address === 'host-gateway' ? (sandbox?.gateway ?? '127.0.0.1') : address}\t${entry.slice(0, at)}`;
  });
  const own = sandbox ? [`${sandbox.address}\t${hostname}`] : [];
  const hosts = [
    '127.0.0.1\tlocalhost',
    '::1\tlocalhost ip6-localhost ip6-loopback',
    'fe00::\tip6-localnet',
    'ff00::\tip6-mcastprefix',
    'ff02::1\tip6-allnodes',
    'ff02::2\tip6-allrouters',
    ...extra,
    ...own,
  ];
  writeFileSync(files.hostname, `${hostname}\n`);
  writeFileSync(files.hosts, `${hosts.join('\n')}\n`);
  writeFileSync(files.resolvConf, resolvConf(host, host.networkMode === 'host'));
  return files;
}
