import { Conflict, ResourceExhausted } from '@gantry/errors';

const toNumber = (address: string) => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const toAddress = (value: number) => [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');

/** An IPv4 subnet: `172.20.0.0/16`. Pure. */
export class Subnet {
  readonly first: number;
  readonly size: number;

  constructor(readonly cidr: string) {
    const [address = '', prefix = '32'] = cidr.split('/');
    this.prefix = Number(prefix);
    this.size = 2 ** (32 - this.prefix);
    this.first = Math.floor(toNumber(address) / this.size) * this.size;
  }

  readonly prefix: number;

  get gateway(): string {
    return toAddress(this.first + 1);
  }

  overlaps(other: Subnet): boolean {
    return this.first < other.first + other.size && other.first < this.first + this.size;
  }

  /** The next free host address after the last one given, so that an address is not reused at once. */
  nextFree(taken: ReadonlySet<string>, after: number): { address: string; position: number } {
    const hosts = this.size - 3; // network, gateway and broadcast are nobody's
    for (let step = 0; step < hosts; step++) {
      const position = ((after + step) % hosts) + 2;
      const address = toAddress(this.first + position);
      if (!taken.has(address)) return { address, position: position - 1 };
    }
    throw new ResourceExhausted(`no available IPv4 addresses on this network's address pool: ${this.cidr}`);
  }
}

/** Docker's MAC for an address: 02:42 and the four bytes. */
export function macOf(address: string): string {
  return ['02', '42', ...address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(':');
}

/** A /16 of 172.16/12 or 10/8 that follows from the instance and meets no route of the host. */
export function chooseSubnet(instanceId: string, routes: readonly string[]): Subnet {
  const seed = Number.parseInt(instanceId, 16);
  const busy = routes.map((route) => new Subnet(route)).filter(({ prefix }) => prefix > 0);
  for (let step = 0; step < 256; step++) {
    const subnet = new Subnet(`10.${(seed + step) % 256}.0.0/16`);
    if (!busy.some((other) => other.overlaps(subnet))) return subnet;
  }
  throw new Conflict('every address pool of 10.0.0.0/8 meets a route of this host');
}
