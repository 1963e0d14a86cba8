import { Redis, type RedisOptions } from 'ioredis';

/** Options for a socket path or a redis:// URL; blocking commands of the queue wait for ever by design. */
export function redisOptions(url: string): RedisOptions {
  const base = { maxRetriesPerRequest: null, retryStrategy: (times: number) => Math.min(times * 50, 1000) };
  if (url.startsWith('/')) return { path: url, ...base };
  const { hostname, port, password, pathname } = new URL(url);
  return {
    host: hostname,
    port: Number(port || 6379),
    ...(password ? { password } : {}),
    db: Number(pathname.slice(1) || 0),
    ...base,
  };
}

export function openRedis(url: string): Redis {
  const redis = new Redis(redisOptions(url));
  // Without a listener a lost connection would end the process; ioredis connects again by itself.
  redis.on('error', () => undefined);
  return redis;
}

export const QUEUE_NAME = 'builds';
/** Someone waits in front of a terminal: ahead of every batch. */
export const PRIORITY = { interactive: 1, batch: 10 } as const;
export const channel = { log: (id: string) => `gantry:log:${id}`, cancel: 'gantry:cancel' };
