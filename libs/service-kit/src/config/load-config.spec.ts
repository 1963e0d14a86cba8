import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { address, flag, integer, loadConfig } from './load-config.js';

const shape = { PORT: integer(1, 65535), VERBOSE: flag.default(false), AT: address.optional(), NAME: z.string() };

describe('configuration', () => {
  it('reads typed values and defaults', () => {
    expect(loadConfig(shape, { PORT: '80', NAME: 'x', AT: 'unix:///run/x' })).toEqual({
      PORT: 80,
      VERBOSE: false,
      NAME: 'x',
      AT: 'unix:///run/x',
    });
  });

  it('names every wrong variable at once, with its value', () => {
    expect(() => loadConfig(shape, { PORT: 'many', AT: 'ftp://x', NAME: '' })).toThrow(
      /PORT="many".*\n.*AT="ftp:\/\/x": expected unix:\/\/\/PATH or tcp:\/\/HOST:PORT\n.*NAME is missing/s,
    );
  });
});
