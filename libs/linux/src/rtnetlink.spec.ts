import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createNetworkNamespace, deleteNetworkNamespace, errnoOf, runNftables } from './addon.js';
import { addressBytes, parseLinks, parseRoutes, request, transact } from './rtnetlink.js';

const root = mkdtempSync(join(tmpdir(), 'gantry-netlink-'));
const bridge = `gt${process.pid}`;

afterAll(() => rmSync(root, { recursive: true }));

describe('rtnetlink', () => {
  it('joins a namespace to a bridge, with address and route', async () => {
    const path = join(root, 'ns');
    await createNetworkNamespace(path);
    await transact('', request.addBridge(bridge, '02:42:0a:00:00:01'));
    try {
      const [link] = parseLinks(await transact('', request.getLink(bridge)));
      const index = link?.index ?? 0;
      expect(link?.name).toBe(bridge);
      await transact('', request.addAddress(index, '10.211.0.1/24'));
      const namespace = await open(path);
      await transact(
        '',
        request.addVeth({
          name: `${bridge}v`,
          master: index,
          peer: { name: 'eth0', namespaceFd: namespace.fd, mac: '02:42:0a:d3:00:02' },
        }),
      );
      await namespace.close();
      const inside = parseLinks(await transact(path, request.getLink('eth0')))[0]?.index ?? 0;
      await transact(
        path,
        request.addAddress(inside, '10.211.0.2/24'),
        request.setUp(inside),
        request.addDefaultRoute(inside, '10.211.0.1'),
      );
      expect(parseRoutes(await transact(path, request.listRoutes()))).toContain('10.211.0.0/24');
      expect(parseLinks(await transact('', request.listLinks())).map(({ name }) => name)).toContain(`${bridge}v`);
    } finally {
      await transact('', request.deleteLink(bridge));
      await deleteNetworkNamespace(path);
    }
    await expect(transact('', request.getLink(bridge))).rejects.toSatisfy((error) => errnoOf(error) === 'ENODEV');
  });

  it('says which request failed and why', async () => {
    await expect(transact('', request.deleteLink('no-such-link'))).rejects.toThrow(
      'netlink request 0 (type 17): No such device',
    );
    await expect(transact(join(root, 'nothing'), request.listLinks())).rejects.toThrow('enter network namespace');
  });

  it.each([
    ['10.1.2.3', '0a010203'],
    ['::1', '00000000000000000000000000000001'],
    ['fd00:1::2:3', 'fd000001000000000000000000020003'],
  ])('writes %s as %s', (address, hex) => expect(addressBytes(address).bytes.toString('hex')).toBe(hex));
});

describe('nftables', () => {
  it('runs a transaction whole or not at all', async () => {
    const table = `gantry_test_${process.pid}`;
    await runNftables(`add table inet ${table}; add map inet ${table} ports { type inet_service : ipv4_addr; }`);
    await expect(
      runNftables(`add element inet ${table} ports { 80 : 10.0.0.1 }; add element inet ${table} nothing { 1 }`),
    ).rejects.toThrow('nftables');
    expect(await runNftables(`list table inet ${table}`)).not.toContain('elements');
    await runNftables(`delete table inet ${table}`);
    await expect(runNftables(`list table inet ${table}`)).rejects.toMatchObject({ code: 'NotFound' });
  });
});
