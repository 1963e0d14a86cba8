import { defineConfig } from 'vitest/config';

/** One real platform for the whole run; its files one after the other, as one of them kills the services. */
export default defineConfig({
  test: {
    include: ['src/**/*.e2e.ts'],
    globalSetup: ['src/platform.setup.ts'],
    testTimeout: 120_000,
    hookTimeout: 180_000,
    pool: 'forks',
    fileParallelism: false,
  },
});
