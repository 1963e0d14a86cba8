import { isIPv4 } from 'node:net';
import { netlinkTransact } from './addon.js';

/**
 * rtnetlink(7) requests as bytes. Several go to the kernel in one call, in order; nothing here spawns a process. Addresses are
 * written `10.0.0.1/16`.
 */
const Type = { newLink: 16, delLink: 17, getLink: 18, newAddr: 20, getAddr: 22, newRoute: 24, getRoute: 26 } as const;
const Flag = { request: 1, ack: 4, excl: 0x200, create: 0x400, dump: 0x300 } as const;
const IFLA = { address: 1, ifname: 3, mtu: 4, master: 10, linkInfo: 18, netNsFd: 28 } as const;
const INFO = { kind: 1, data: 2 } as const;
const VETH_INFO_PEER = 1;
const IFA = { address: 1, local: 2, broadcast: 4 } as const;
const RTA = { dst: 1, oif: 4, gateway: 5 } as const;
const IFF_UP = 1;
const AF = { inet: 2, inet6: 10 } as const;

let sequence = 0;

function attribute(type: number, value: Buffer): Buffer {
  const length = 4 + value.length;
  const bytes = Buffer.alloc((length + 3) & ~3);
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  value.copy(bytes, 4);
  return bytes;
}

const text = (value: string) => Buffer.from(`${value}\0`);
const u32 = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const mac = (value: string) => Buffer.from(value.replaceAll(':', ''), 'hex');

function message(type: number, flags: number, ...body: Buffer[]): Buffer {
  const payload = Buffer.concat(body);
  const bytes = Buffer.alloc((16 + payload.length + 3) & ~3);
  bytes.writeUInt32LE(16 + payload.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | Flag.request, 6);
  bytes.writeUInt32LE((sequence = (sequence + 1) >>> 0), 8);
  payload.copy(bytes, 16);
  return bytes;
}

/** struct ifinfomsg */
function linkHeader(index: number, up: boolean | undefined): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeInt32LE(index, 4);
  if (up !== undefined) {
    bytes.writeUInt32LE(up ? IFF_UP : 0, 8);
    bytes.writeUInt32LE(IFF_UP, 12);
  }
  return bytes;
}

/** The address's bytes and family. */
export function addressBytes(address: string): { family: number; bytes: Buffer } {
  if (isIPv4(address)) return { family: AF.inet, bytes: Buffer.from(address.split('.').map(Number)) };
  const [head = '', tail] = address.split('::');
  const words = (part: string) => (part === '' ? [] : part.split(':').map((word) => Number.parseInt(word, 16)));
  const front = words(head);
  const back = tail === undefined ? [] : words(tail);
  const all = [...front, ...Array<number>(tail === undefined ? 0 : 8 - front.length - back.length).fill(0), ...back];
  const bytes = Buffer.alloc(16);
  all.forEach((word, index) => bytes.writeUInt16BE(word, index * 2));
  return { family: AF.inet6, bytes };
}

export interface VethOptions {
  readonly name: string;
  readonly mtu?: number;
  /** Index of the bridge that the host's end becomes a port of. */
  readonly master: number;
  readonly peer: { readonly name: string; readonly mac?: string; readonly namespaceFd: number };
}

export const request = {
  /** A bridge of this name; EEXIST where there is one. */
  addBridge: (name: string, hardwareAddress: string) =>
    message(
      Type.newLink,
      Flag.ack | Flag.create | Flag.excl,
      linkHeader(0, true),
      attribute(IFLA.ifname, text(name)),
      attribute(IFLA.address, mac(hardwareAddress)),
      attribute(IFLA.linkInfo, attribute(INFO.kind, text('bridge'))),
    ),

  /** A pair whose other end is born in another namespace: no end ever shows up in the wrong place. */
  addVeth: ({ name, mtu, master, peer }: VethOptions) => {
    const size = mtu === undefined ? [] : [attribute(IFLA.mtu, u32(mtu))];
    const peerInfo = attribute(
      VETH_INFO_PEER,
      Buffer.concat([
        linkHeader(0, undefined),
        attribute(IFLA.ifname, text(peer.name)),
        ...(peer.mac === undefined ? [] : [attribute(IFLA.address, mac(peer.mac))]),
        ...size,
        attribute(IFLA.netNsFd, u32(peer.namespaceFd)),
      ]),
    );
    const info = Buffer.concat([attribute(INFO.kind, text('veth')), attribute(INFO.data, peerInfo)]);
    return message(
      Type.newLink,
      Flag.ack | Flag.create | Flag.excl,
      linkHeader(0, true),
      attribute(IFLA.ifname, text(name)),
      ...size,
      attribute(IFLA.master, u32(master)),
      attribute(IFLA.linkInfo, info),
    );
  },

  setUp: (index: number, hardwareAddress?: string) =>
    message(
      Type.newLink,
      Flag.ack,
      linkHeader(index, true),
      ...(hardwareAddress === undefined ? [] : [attribute(IFLA.address, mac(hardwareAddress))]),
    ),

  deleteLink: (name: string) =>
    message(Type.delLink, Flag.ack, linkHeader(0, undefined), attribute(IFLA.ifname, text(name))),

  getLink: (name: string) =>
    message(Type.getLink, Flag.ack, linkHeader(0, undefined), attribute(IFLA.ifname, text(name))),

  addAddress: (index: number, cidr: string) => {
    const [address = '', prefix = '32'] = cidr.split('/');
    const { family, bytes } = addressBytes(address);
    const header = Buffer.alloc(8);
    header[0] = family;
    header[1] = Number(prefix);
    header.writeUInt32LE(index, 4);
    return message(
      Type.newAddr,
      Flag.ack | Flag.create,
      header,
      attribute(IFA.local, bytes),
      attribute(IFA.address, bytes),
    );
  },

  addDefaultRoute: (index: number, gateway: string) => {
    const { family, bytes } = addressBytes(gateway);
    // struct rtmsg: table main (254), protocol static (4), scope universe, type unicast (1)
    const header = Buffer.from([family, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
    return message(
      Type.newRoute,
      Flag.ack | Flag.create,
      header,
      attribute(RTA.gateway, bytes),
      attribute(RTA.oif, u32(index)),
    );
  },

  listLinks: () => message(Type.getLink, Flag.dump, linkHeader(0, undefined)),
  listRoutes: () => message(Type.getRoute, Flag.dump, Buffer.from([AF.inet, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
};

/** Sends requests in order, in a namespace (`""`: the host's). */
export function transact(namespacePath: string, ...requests: Buffer[]): Promise<Buffer> {
  return netlinkTransact(namespacePath, Buffer.concat(requests));
}

function* messages(reply: Buffer): Generator<{ type: number; body: Buffer }> {
  for (let at = 0; at + 16 <= reply.length;) {
    const length = reply.readUInt32LE(at);
    yield { type: reply.readUInt16LE(at + 4), body: reply.subarray(at + 16, at + length) };
    at += (length + 3) & ~3;
  }
}

function attributes(body: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  for (let at = 0; at + 4 <= body.length;) {
    const length = body.readUInt16LE(at);
    if (length < 4) break;
    found.set(body.readUInt16LE(at + 2) & 0x3fff, body.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return found;
}

export interface Link {
  readonly index: number;
  readonly name: string;
}

/** Links in an answer to `getLink` or `listLinks`. */
export function parseLinks(reply: Buffer): Link[] {
  return [...messages(reply)]
    .filter(({ type }) => type === Type.newLink)
    .map(({ body }) => {
      const name = attributes(body.subarray(16)).get(IFLA.ifname);
      return { index: body.readInt32LE(4), name: name ? name.toString('utf8', 0, name.length - 1) : '' };
    });
}

/** Destinations of the host's IPv4 routes, `10.0.0.0/8`; the default route is left out. */
export function parseRoutes(reply: Buffer): string[] {
  return [...messages(reply)].flatMap(({ type, body }) => {
    const destination = type === Type.newRoute ? attributes(body.subarray(12)).get(RTA.dst) : undefined;
    return destination && destination.length === 4 ? [`${[...destination].join('.')}/${body[1] ?? 32}`] : [];
  });
}
