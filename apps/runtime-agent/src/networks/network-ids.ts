import { createHash } from 'node:crypto';

/** The default bridge has one ID for as long as its installation lives. */
export function bridgeNetworkId(bridge: string): string {
  return createHash('sha256').update(bridge).digest('hex');
}
