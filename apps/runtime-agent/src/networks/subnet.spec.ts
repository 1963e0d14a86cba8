import { describe, expect, it } from 'vitest';
import { chooseSubnet, macOf, Subnet } from './subnet.js';

describe('a subnet', () => {
  it('gives addresses in turn, never a taken one', () => {
    const subnet = new Subnet('10.1.0.0/29');
    const taken = new Set<string>();
    let position = 0;
    for (let n = 0; n < 5; n++) {
      const next = subnet.nextFree(taken, position);
      taken.add(next.address);
      position = next.position;
    }
    expect([...taken].sort()).toEqual(['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5', '10.1.0.6']);
    expect(() => subnet.nextFree(taken, position)).toThrow(
      "no available IPv4 addresses on this network's address pool: 10.1.0.0/29",
    );
  });

  it('is chosen by the instance and meets no route', () => {
    expect(chooseSubnet('000005', []).cidr).toBe('10.5.0.0/16');
    expect(chooseSubnet('000005', ['10.5.1.0/24', '10.6.0.0/15']).cidr).toBe('10.8.0.0/16');
  });

  it('has Docker’s hardware addresses', () => expect(macOf('10.1.0.255')).toBe('02:42:0a:01:00:ff'));
});
