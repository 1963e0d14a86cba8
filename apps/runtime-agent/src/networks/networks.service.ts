import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { join } from 'node:path';
import { Inject, Injectable, type OnModuleDestroy, type OnModuleInit } from '@nestjs/common';
import { Conflict, InvalidArgument, NotFound } from '@gantry/errors';
import { createNetworkNamespace, deleteNetworkNamespace, rtnetlink, runNftables } from '@gantry/linux';
import { LOGGER, type Logger } from '@gantry/service-kit';
import { CONFIG, type AgentConfig } from '../config.js';
import { chooseSubnet, macOf, Subnet } from './subnet.js';

const { request, transact, parseLinks, parseRoutes } = rtnetlink;
const POOL_SIZE = 4;
const PROTOCOLS = ['tcp', 'udp', 'sctp'];

export interface PortWish {
  readonly containerPort: number;
  readonly protocol: string;
  readonly hostIp: string;
  /** "", "8080" or "8000-8010" */
  readonly hostPort: string;
}

export interface PublishedPort {
  readonly containerPort: number;
  readonly protocol: string;
  readonly hostIp: string;
  readonly hostPort: number;
}

export interface Sandbox {
  readonly namespacePath: string;
  readonly address: string;
  readonly prefixLength: number;
  readonly gateway: string;
  readonly mac: string;
  readonly ports: readonly PublishedPort[];
}

/** A prepared namespace with its cable, which a container takes over. */
interface Cable {
  readonly name: string;
  readonly address: string;
}

interface Lease extends Cable {
  readonly containerId: string;
  readonly ports: readonly PublishedPort[];
}

interface State {
  subnet: string;
  position: number;
  leases: Lease[];
}

type Claim = Server | UdpSocket;

/**
 * The default bridge of this installation: namespaces with a cable to it, made ahead (the kernel's network lock is the slowest part of a
 * start), leases recorded before they are used, published ports in one nftables table of our own.
 */
@Injectable()
export class NetworksService implements OnModuleInit, OnModuleDestroy {
  readonly bridge: string;
  readonly #table: string;
  readonly #statePath: string;
  readonly #netnsDir: string;
  #state: State = { subnet: '', position: 0, leases: [] };
  #bridgeIndex = 0;
  #subnet!: Subnet;
  readonly #pool: Cable[] = [];
  #filling: Promise<void> | undefined;
  readonly #claims = new Map<string, Claim[]>();
  readonly #background = new Set<Promise<void>>();
  #isClosed = false;
  #counter = 0;

  constructor(
    @Inject(CONFIG) config: AgentConfig,
    @Inject(LOGGER) private readonly logger: Logger,
  ) {
    this.bridge = `gtry${config.instanceId}`;
    this.#table = `inet gantry_${config.instanceId}`;
    this.#statePath = join(config.dataDir, 'network.json');
    this.#netnsDir = join(config.runDir, 'netns');
    mkdirSync(this.#netnsDir, { recursive: true });
  }

  async onModuleInit(): Promise<void> {
    if (existsSync(this.#statePath)) this.#state = JSON.parse(readFileSync(this.#statePath, 'utf8')) as State;
    else
      this.#state.subnet = chooseSubnet(
        this.bridge.slice(4),
        parseRoutes(await transact('', request.listRoutes())),
      ).cidr;
    this.#subnet = new Subnet(this.#state.subnet);
    this.#save();
    await this.#raiseBridge();
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
    // Connections from this host to 127.0.0.1:PORT leave it by the bridge (ip-sysctl, route_localnet).
    writeFileSync(`/proc/sys/net/ipv4/conf/${this.bridge}/route_localnet`, '1');
    await this.#writeRules();
    this.#refill();
  }

  async onModuleDestroy(): Promise<void> {
    this.#isClosed = true;
    await this.#filling;
    await Promise.allSettled(this.#background);
    for (const cable of this.#pool.splice(0)) await this.#drop(cable);
    for (const claims of this.#claims.values()) for (const claim of claims) claim.close();
    if (this.#bridgeIndex !== 0 && this.#state.leases.length === 0) await this.#dismantle();
  }

  get subnet(): string {
    return this.#subnet.cidr;
  }

  get gateway(): string {
    return this.#subnet.gateway;
  }

  /** A sandbox for a container: recorded, its ports claimed, not yet open. Idempotent. */
  async acquire(containerId: string, wishes: readonly PortWish[]): Promise<Sandbox> {
    const known = this.#state.leases.find((lease) => lease.containerId === containerId);
    if (known) return this.#sandbox(known);
    const ports = await this.#claimPorts(containerId, wishes);
    try {
      const cable = this.#pool.shift() ?? (await this.#make());
      this.#refill();
      const lease = { ...cable, containerId, ports };
      this.#state.leases.push(lease);
      this.#save();
      return this.#sandbox(lease);
    } catch (error) {
      this.#releaseClaims(containerId);
      throw error;
    }
  }

  /** Opens the published ports: called when the process runs, so that no port leads to nothing. */
  async publish(containerId: string): Promise<void> {
    const lease = this.#state.leases.find((entry) => entry.containerId === containerId);
    if (!lease || lease.ports.length === 0) return;
    await runNftables(
      lease.ports
        .map(
          (port) =>
            `add element ${this.#table} ${port.protocol}_ports { ${element(port)} : ${lease.address} . ${port.containerPort} }`,
        )
        .join('\n'),
    );
  }

  /** Frees address, ports and namespace. Idempotent; the slow part goes on behind the caller's back. */
  async release(containerId: string): Promise<void> {
    const lease = this.#state.leases.find((entry) => entry.containerId === containerId);
    this.#releaseClaims(containerId);
    if (!lease) return;
    await this.#close(lease);
    this.#state.leases = this.#state.leases.filter((entry) => entry !== lease);
    this.#save();
    const dropping = this.#drop(lease).catch((error: unknown) =>
      this.logger.warn({ err: error, namespace: lease.name }, 'a network sandbox was not removed'),
    );
    this.#background.add(dropping);
    void dropping.finally(() => this.#background.delete(dropping));
  }

  sandboxOf(containerId: string): Sandbox | undefined {
    const lease = this.#state.leases.find((entry) => entry.containerId === containerId);
    return lease && this.#sandbox(lease);
  }

  /** After a crash: opens the ports of what lives again, and reaps what belongs to nothing. */
  async recover(live: ReadonlySet<string>): Promise<void> {
    for (const lease of [...this.#state.leases]) {
      if (!live.has(lease.containerId)) await this.release(lease.containerId);
      else {
        for (const port of lease.ports)
          await this.#claim(lease.containerId, port).catch((error: unknown) =>
            this.logger.warn({ err: error }, 'a published port is taken'),
          );
        await this.publish(lease.containerId);
      }
    }
    const used = new Set([...this.#state.leases, ...this.#pool].map(({ name }) => name));
    await this.#filling;
    for (const { name } of this.#pool) used.add(name);
    for (const name of readdirSync(this.#netnsDir)) {
      if (!used.has(name)) await this.#drop({ name, address: '' });
    }
  }

  #sandbox(lease: Lease): Sandbox {
    return {
      namespacePath: join(this.#netnsDir, lease.name),
      address: lease.address,
      prefixLength: this.#subnet.prefix,
      gateway: this.#subnet.gateway,
      mac: macOf(lease.address),
      ports: lease.ports,
    };
  }

  async #raiseBridge(): Promise<void> {
    const find = async () =>
      parseLinks(await transact('', request.listLinks())).find(({ name }) => name === this.bridge)?.index;
    let index = await find();
    if (index === undefined) {
      await transact('', request.addBridge(this.bridge, macOf(this.#subnet.gateway)));
      index = (await find()) ?? 0;
      await transact(
        '',
        request.addAddress(index, `${this.#subnet.gateway}/${this.#subnet.prefix}`),
        request.setUp(index),
      );
    }
    this.#bridgeIndex = index;
  }

  /** The whole table anew, atomically: what a container's port is, is an element of a map. */
  async #writeRules(): Promise<void> {
    const { bridge } = this;
    const redirect = PROTOCOLS.map(
      (protocol) => `meta l4proto ${protocol} dnat ip to ip daddr . ${protocol} dport map @${protocol}_ports;`,
    ).join(' ');
    await runNftables(`add table ${this.#table}
delete table ${this.#table}
table ${this.#table} {
${PROTOCOLS.map((protocol) => `  map ${protocol}_ports { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }`).join('\n')}
  chain prerouting { type nat hook prerouting priority dstnat; fib daddr type != local return; ${redirect} }
  chain output { type nat hook output priority -100; fib daddr type != local return; ${redirect} }
  chain postrouting { type nat hook postrouting priority srcnat;
    ip saddr ${this.#subnet.cidr} oifname != "${bridge}" masquerade
    oifname "${bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "${bridge}" ip saddr ${this.#subnet.cidr} ct status dnat masquerade
  }
  chain forward { type filter hook forward priority filter; policy accept;
    iifname "${bridge}" accept
    oifname "${bridge}" ct state established,related accept
    oifname "${bridge}" ct status dnat accept
    oifname "${bridge}" drop
  }
}`);
  }

  async #close(lease: Lease): Promise<void> {
    if (lease.ports.length === 0) return;
    try {
      await runNftables(
        lease.ports
          .map((port) => `delete element ${this.#table} ${port.protocol}_ports { ${element(port)} }`)
          .join('\n'),
      );
    } catch (error) {
      if (!(error instanceof NotFound)) throw error; // never opened: the start failed before
    }
  }

  /** Namespace, cable, address, route: a handful of netlink messages. */
  async #make(): Promise<Cable> {
    const taken = new Set([...this.#state.leases, ...this.#pool].map(({ address }) => address));
    const { address, position } = this.#subnet.nextFree(taken, this.#state.position);
    this.#state.position = position;
    const name = `${process.pid.toString(36)}${(this.#counter++).toString(36)}`;
    const path = join(this.#netnsDir, name);
    const link = `gv${this.bridge.slice(4)}${name}`.slice(0, 15);
    await createNetworkNamespace(path);
    try {
      const namespace = await open(path, 'r');
      try {
        await transact(
          '',
          request.addVeth({
            name: link,
            master: this.#bridgeIndex,
            peer: { name: 'eth0', mac: macOf(address), namespaceFd: namespace.fd },
          }),
        );
      } finally {
        await namespace.close();
      }
      const index = parseLinks(await transact(path, request.getLink('eth0')))[0]?.index ?? 0;
      await transact(
        path,
        request.addAddress(index, `${address}/${this.#subnet.prefix}`),
        request.setUp(index),
        request.addDefaultRoute(index, this.#subnet.gateway),
      );
      return { name, address };
    } catch (error) {
      await deleteNetworkNamespace(path);
      throw error;
    }
  }

  /** The cable ends with its namespace. */
  async #drop(cable: Cable): Promise<void> {
    await deleteNetworkNamespace(join(this.#netnsDir, cable.name));
  }

  #refill(): void {
    if (this.#filling || this.#isClosed || this.#pool.length >= POOL_SIZE) return;
    const fill = async () => {
      while (this.#pool.length < POOL_SIZE && !this.#isClosed) this.#pool.push(await this.#make());
    };
    this.#filling = fill()
      .catch((error: unknown) => this.logger.warn({ err: error }, 'the pool of network sandboxes is not refilled'))
      .finally(() => (this.#filling = undefined));
  }

  async #claimPorts(containerId: string, wishes: readonly PortWish[]): Promise<PublishedPort[]> {
    const ports: PublishedPort[] = [];
    try {
      for (const wish of wishes) ports.push(await this.#claimOne(containerId, wish));
    } catch (error) {
      this.#releaseClaims(containerId);
      throw error;
    }
    return ports;
  }

  async #claimOne(containerId: string, wish: PortWish): Promise<PublishedPort> {
    const [low = '0', high = low] = (wish.hostPort || '0').split('-');
    const hostIp = wish.hostIp || '0.0.0.0';
    if (!/^\d+$/.test(low) || !/^\d+$/.test(high) || Number(high) > 65535)
      throw new InvalidArgument(`invalid port specification: "${wish.hostPort}"`);
    for (let hostPort = Number(low); hostPort <= Number(high); hostPort++) {
      const isLast = hostPort === Number(high);
      try {
        return await this.#claim(containerId, {
          containerPort: wish.containerPort,
          protocol: wish.protocol,
          hostIp,
          hostPort,
        });
      } catch (error) {
        if (isLast) throw error;
      }
    }
    throw new InvalidArgument(`invalid port specification: "${wish.hostPort}"`);
  }

  /** Holds the port with a socket of our own, so that no process of the host takes it; the map leads its traffic past the socket. */
  async #claim(containerId: string, port: PublishedPort): Promise<PublishedPort> {
    const taken = this.#state.leases.some(
      ({ containerId: other, ports }) => other !== containerId && ports.some((entry) => clashes(entry, port)),
    );
    if (taken && port.hostPort !== 0)
      throw new Conflict(`Bind for ${port.hostIp}:${port.hostPort} failed: port is already allocated`);
    const [claim, hostPort] = await bindPort(port);
    this.#claims.set(containerId, [...(this.#claims.get(containerId) ?? []), claim]);
    return { ...port, hostPort };
  }

  #releaseClaims(containerId: string): void {
    for (const claim of this.#claims.get(containerId) ?? []) claim.close();
    this.#claims.delete(containerId);
  }

  /** Replaced whole: a crash leaves the old state or the new. */
  #save(): void {
    writeFileSync(`${this.#statePath}.new`, JSON.stringify(this.#state));
    renameSync(`${this.#statePath}.new`, this.#statePath);
  }

  /** Takes the bridge and the rules away: nobody is on them. The next start makes them again, with the same subnet. */
  async #dismantle(): Promise<void> {
    await runNftables(`delete table ${this.#table}`);
    await transact('', request.deleteLink(this.bridge));
  }
}

function clashes(a: PublishedPort, b: PublishedPort): boolean {
  const anyHost = a.hostIp === '0.0.0.0' || b.hostIp === '0.0.0.0';
  return a.protocol === b.protocol && a.hostPort === b.hostPort && (anyHost || a.hostIp === b.hostIp);
}

function element({ hostIp, hostPort }: PublishedPort): string {
  return `${hostIp === '0.0.0.0' ? '0.0.0.0-255.255.255.255' : hostIp} . ${hostPort}`;
}

function bindPort(port: PublishedPort): Promise<[Claim, number]> {
  const fail = (error: NodeJS.ErrnoException) =>
    new Conflict(
      error.code === 'EADDRINUSE'
        ? `failed to bind host port for ${port.hostIp}:${port.hostPort}:0.0.0.0:${port.containerPort}/${port.protocol}: address already in use`
        : `failed to bind host port ${port.hostIp}:${port.hostPort}/${port.protocol}: ${error.message}`,
    );
  return new Promise((resolve, reject) => {
    if (port.protocol === 'udp') {
      const socket = createSocket('udp4');
      socket.once('error', (error) => reject(fail(error)));
      socket.bind({ address: port.hostIp, port: port.hostPort, exclusive: true }, () =>
        resolve([socket, socket.address().port]),
      );
      return;
    }
    const server = createServer((socket) => socket.destroy());
    server.once('error', (error) => reject(fail(error)));
    server.listen({ host: port.hostIp, port: port.hostPort, exclusive: true, backlog: 1 }, () => {
      const bound = server.address();
      resolve([server, typeof bound === 'object' && bound ? bound.port : 0]);
    });
  });
}
